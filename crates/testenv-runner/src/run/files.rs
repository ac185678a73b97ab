//! The files of a run.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};

use testenv_model::Run;
use testenv_report::{junit, record};

use super::{RunError, report_path};

/// Name of the run in testenv's JUnit XML.
const REPORT_NAME: &str = "testenv";

/// The output directory, with what nextest is given and gives back in it while a run lasts.
#[derive(Debug)]
pub(super) struct Files {
    output: PathBuf,
    /// Tool configuration for nextest.
    pub(super) tool_config: PathBuf,
    /// Where that configuration has nextest write its report.
    pub(super) nextest_report: PathBuf,
}

impl Files {
    /// Makes the directory and writes the tool configuration.
    pub(super) fn create(output: &Path) -> Result<Self, RunError> {
        let at = |path: &Path, action| {
            let path = path.to_path_buf();
            move |source| RunError::File { action, path, source }
        };
        fs::create_dir_all(output).map_err(at(output, "create"))?;
        let output = output.canonicalize().map_err(at(output, "find"))?;
        // Two runs of one workspace at a time do not meet here, though the later one overwrites the results.
        let unique = |extension: &str| output.join(format!(".nextest-{}.{extension}", std::process::id()));
        let files = Self { tool_config: unique("toml"), nextest_report: unique("xml"), output };
        fs::write(&files.tool_config, report_path::tool_config(&files.nextest_report))
            .map_err(at(&files.tool_config, "write"))?;
        Ok(files)
    }

    /// Writes the record and the JUnit XML of the run.
    pub(super) fn write(&self, run: &Run) -> Result<[PathBuf; 2], RunError> {
        let json = self.write_one("run.json", |file| file.write_all(record::to_json(run).as_bytes()))?;
        let xml = self.write_one("junit.xml", |file| junit::write(run, REPORT_NAME, file))?;
        Ok([json, xml])
    }

    /// Whoever reads the file meanwhile sees the old one or the new one, never half of one.
    fn write_one(
        &self,
        name: &str,
        write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
    ) -> Result<PathBuf, RunError> {
        let path = self.output.join(name);
        let temporary = self.output.join(format!(".{name}-{}", std::process::id()));
        let written = File::create(&temporary).map(BufWriter::new).and_then(|mut file| {
            write(&mut file)?;
            file.flush()?;
            fs::rename(&temporary, &path)
        });
        match written {
            Ok(()) => Ok(path),
            Err(source) => Err(RunError::File { action: "write", path, source }),
        }
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.tool_config);
        let _ = fs::remove_file(&self.nextest_report);
    }
}
