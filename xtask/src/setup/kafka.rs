//! Apache Kafka, whose libraries Maven brings: no distribution packages it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use super::Missing;
use crate::run;

const VERSION: &str = "4.3.1";
/// What binds Kafka's log to its output; in the version of the log4j that Kafka brings.
const LOG4J: &str = "2.25.4";
const PLUGIN: &str = "org.apache.maven.plugins:maven-dependency-plugin:3.6.0:copy-dependencies";

/// The programs that tests use, each a class of Kafka's.
const PROGRAMS: [(&str, &str); 4] = [
    ("kafka-server-start.sh", "kafka.Kafka"),
    ("kafka-console-producer.sh", "org.apache.kafka.tools.ConsoleProducer"),
    ("kafka-console-consumer.sh", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
    ("kafka-consumer-groups.sh", "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"),
];

/// Directory of the programs, if Kafka was installed.
pub(super) fn installed() -> Option<PathBuf> {
    let bin = home().join("bin");
    bin.join("kafka-server-start.sh").is_file().then_some(bin)
}

/// Kafka, where Maven is there or is about to be.
pub(super) fn missing(maven_comes: bool) -> Option<Missing> {
    if is_there() || cannot(maven_comes).is_some() {
        return None;
    }
    Some(Missing {
        what: format!("Apache Kafka {VERSION} (about 45 MB, into {})", home().display()),
        command: format!("mvn {PLUGIN}"),
        install: Some(Box::new(install)),
    })
}

/// Why there is no Kafka, when there is none.
pub(super) fn skipped() -> Option<String> {
    if is_there() { None } else { cannot(false) }
}

fn is_there() -> bool {
    installed().is_some() || run::which("kafka-server-start.sh").is_some()
}

fn cannot(maven_comes: bool) -> Option<String> {
    let lacking = ["java", "mvn"].into_iter().find(|program| run::which(program).is_none());
    lacking.filter(|_| !maven_comes).map(|program| {
        format!("{program} is not installed, and Apache Kafka is made of libraries that Maven brings")
    })
}

/// Where it goes, laid out as Kafka's own distribution is.
fn home() -> PathBuf {
    run::reachable_dir("testenv-tools").join(format!("kafka-{VERSION}"))
}

fn install() -> Result<()> {
    let home = home();
    let staging = home.with_file_name(format!(".kafka-{VERSION}"));
    if staging.exists() {
        fs::remove_dir_all(&staging)?;
    }
    fs::create_dir_all(staging.join("bin"))?;
    fs::write(staging.join("pom.xml"), pom())?;
    let mut maven = run::command("mvn");
    maven.args(["--batch-mode", "--quiet", "--file"]).arg(staging.join("pom.xml")).arg(PLUGIN);
    run::step("maven", maven.args(["-DincludeScope=runtime", "-DoutputDirectory=libs"]))?;
    for (name, class) in PROGRAMS {
        let file = staging.join("bin").join(name);
        fs::write(&file, script(class))?;
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755))?;
    }
    let server = format!("libs/kafka_2.13-{VERSION}.jar");
    ensure!(staging.join(&server).is_file(), "maven brought no {server}");
    fs::rename(&staging, &home).with_context(|| format!("failed to move {}", staging.display()))?;
    check(&home)
}

/// Kafka's server and its tools, without what the tools have for Kafka Connect.
fn pom() -> String {
    let dependency = |group: &str, artifact: &str, version: &str, more: &str| {
        format!(
            "<dependency><groupId>{group}</groupId><artifactId>{artifact}</artifactId>\
             <version>{version}</version>{more}</dependency>\n"
        )
    };
    let alone =
        "<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>";
    let dependencies = [
        dependency("org.apache.kafka", "kafka_2.13", VERSION, ""),
        dependency("org.apache.kafka", "kafka-tools", VERSION, alone),
        dependency("org.apache.logging.log4j", "log4j-slf4j-impl", LOG4J, ""),
    ];
    format!(
        "<project xmlns=\"http://maven.apache.org/POM/4.0.0\"><modelVersion>4.0.0</modelVersion>\n\
         <groupId>testenv</groupId><artifactId>kafka</artifactId><version>1</version><packaging>pom</packaging>\n\
         <dependencies>\n{}</dependencies></project>\n",
        dependencies.concat()
    )
}

fn script(class: &str) -> String {
    format!(
        "#!/bin/sh\n# Written by cargo xtask; Kafka's own distribution has one of this name.\n\
         libs=$(dirname \"$(readlink -f \"$0\")\")/../libs\n\
         exec java -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp \"$libs/*\" {class} \"$@\"\n"
    )
}

/// Runs a program as the kind of user that will run servers.
fn check(home: &Path) -> Result<()> {
    let program = home.join("bin/kafka-server-start.sh");
    let program = program.to_str().context("the target directory's name is not UTF-8")?;
    let version = run::output(&mut run::as_servers_user(&[program, "--version"]))?;
    println!("Kafka {}", version.trim());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_and_its_tools_are_of_one_version() {
        let pom = pom();
        assert_eq!(pom.matches(&format!("<version>{VERSION}</version>")).count(), 2);
        assert_eq!(pom.matches("<dependency>").count(), pom.matches("</dependency>").count());
    }
}
