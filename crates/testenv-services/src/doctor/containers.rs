//! Docker and its like: which sockets are there, and who answers.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use super::files::sudo;
use super::finding::{Check, Finding, Group, Severity};

const ENGINE: Check = Check::new("container-engine", Group::Containers);

/// How long all of them may take to answer.
const LIMIT: Duration = Duration::from_secs(2);
/// Bytes of an answer that are read at the most.
const MAX_ANSWER: u64 = 4096;

/// Sockets of engines below a user's home: Colima's, Docker Desktop's, Rancher Desktop's.
const IN_HOME: [&str; 4] = [
    ".colima/default/docker.sock",
    ".docker/desktop/docker.sock",
    ".docker/run/docker.sock",
    ".rd/docker.sock",
];

/// Where an engine may listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// `unix:///var/run/docker.sock`, `tcp://build:2375`.
    pub(super) url: String,
    /// The variable that names it, if one does.
    pub(super) named_by: Option<&'static str>,
}

/// What came of asking.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// There is no such socket.
    Absent,
    /// It may not be connected to.
    Denied,
    /// Nobody listens.
    Dead(String),
    /// No answer in time.
    Silent,
    /// It answers, but not as an engine does.
    Strange(String),
    /// It is not asked, and why.
    NotAsked(&'static str),
    /// It answers; the server's name and version.
    Engine(String),
}

/// Everywhere an engine may listen.
pub(super) fn targets(environment: &BTreeMap<String, String>) -> Vec<Target> {
    let given = |name: &str| environment.get(name).filter(|value| !value.is_empty());
    let named = ["DOCKER_HOST", "CONTAINER_HOST"].into_iter();
    let named = named.filter_map(|name| Some(Target { url: given(name)?.clone(), named_by: Some(name) }));
    let uid = rustix::process::geteuid().as_raw();
    let runtime = given("XDG_RUNTIME_DIR").map_or_else(|| format!("/run/user/{uid}"), String::clone);
    let mut sockets: Vec<PathBuf> = vec!["/var/run/docker.sock".into(), "/run/podman/podman.sock".into()];
    sockets.extend(["docker.sock", "podman/podman.sock"].map(|name| Path::new(&runtime).join(name)));
    if let Some(home) = given("HOME") {
        sockets.extend(IN_HOME.map(|name| Path::new(home).join(name)));
    }
    let usual = sockets
        .into_iter()
        .map(|socket| Target { url: format!("unix://{}", socket.display()), named_by: None });
    let mut targets: Vec<Target> = Vec::new();
    for target in named.chain(usual) {
        if !targets.iter().any(|known| is_same(known, &target)) {
            targets.push(target);
        }
    }
    targets
}

/// Whether two names lead to the same socket, as `/var/run` and `/run` do.
fn is_same(one: &Target, other: &Target) -> bool {
    let place = |target: &Target| {
        let path = Path::new(target.url.strip_prefix("unix://")?);
        Some(path.canonicalize().unwrap_or_else(|_| path.to_path_buf()))
    };
    one.url == other.url || place(one).is_some_and(|it| place(other) == Some(it))
}

/// Asks all of them at once.
pub(super) fn read(targets: Vec<Target>) -> Vec<(Target, Answer)> {
    let deadline = Instant::now() + LIMIT;
    let asked: Vec<_> = targets
        .into_iter()
        .map(|target| {
            let (send, answer) = mpsc::channel();
            let url = target.url.clone();
            // A thread that nobody waits for any longer ends with the program.
            thread::spawn(move || send.send(ask(&url)));
            (target, answer)
        })
        .collect();
    let wait = |answer: mpsc::Receiver<Answer>| {
        answer.recv_timeout(deadline.saturating_duration_since(Instant::now())).unwrap_or(Answer::Silent)
    };
    asked.into_iter().map(|(target, answer)| (target, wait(answer))).collect()
}

fn ask(url: &str) -> Answer {
    let answered = if let Some(path) = url.strip_prefix("unix://") {
        UnixStream::connect(path).and_then(|stream| {
            stream.set_read_timeout(Some(LIMIT))?;
            ping(stream)
        })
    } else if let Some(address) = url.strip_prefix("tcp://") {
        if !address.contains(':') {
            return Answer::Strange("an address has a port: tcp://HOST:2375".into());
        }
        connect(address.trim_end_matches('/')).and_then(ping)
    } else if url.starts_with("ssh://") {
        return Answer::NotAsked("it is reached through ssh");
    } else {
        return Answer::Strange("it is no unix://, tcp:// or ssh:// address".into());
    };
    match answered {
        Ok(answer) => parse(&answer),
        Err(error) => match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Answer::Absent,
            io::ErrorKind::PermissionDenied => Answer::Denied,
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => Answer::Silent,
            _ => Answer::Dead(error.to_string()),
        },
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut last = io::Error::other("the name has no address");
    for address in address.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, LIMIT) {
            Ok(stream) => {
                stream.set_read_timeout(Some(LIMIT))?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn ping(mut stream: impl Read + Write) -> io::Result<String> {
    stream.write_all(b"GET /_ping HTTP/1.1\r\nHost: docker\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    // What was said before the connection broke or the time was up may be enough.
    match stream.take(MAX_ANSWER).read_to_end(&mut answer) {
        Err(error) if answer.is_empty() => Err(error),
        _ => Ok(String::from_utf8_lossy(&answer).into_owned()),
    }
}

/// The server in an answer such as `HTTP/1.1 200 OK …Server: Docker/24.0.7 (linux)…`.
fn parse(answer: &str) -> Answer {
    let status = answer.lines().next().unwrap_or_default();
    let mut words = status.split(' ');
    let is_http = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    if !is_http || words.next() != Some("200") {
        let shown: String = status.chars().filter(|c| !c.is_control()).take(80).collect();
        return Answer::Strange(if shown.is_empty() { "it hung up".into() } else { shown });
    }
    let headers = answer.lines().take_while(|line| !line.is_empty());
    let mut named = headers.filter_map(|line| line.split_once(':'));
    let server = named.find(|(name, _)| name.eq_ignore_ascii_case("server")).map(|(_, value)| value.trim());
    let server: String = server.unwrap_or("an engine").chars().filter(|c| !c.is_control()).take(80).collect();
    Answer::Engine(server)
}

pub(super) fn judge(seen: &[(Target, Answer)]) -> Vec<Finding> {
    let findings: Vec<_> = seen.iter().filter_map(|(target, answer)| judge_one(target, answer)).collect();
    if findings.is_empty() {
        return vec![Finding::ok(ENGINE, "no container engine, and no role needs one")];
    }
    findings
}

fn judge_one(target: &Target, answer: &Answer) -> Option<Finding> {
    let url = &target.url;
    let name = target.named_by.map_or_else(|| url.clone(), |variable| format!("{variable}={url}"));
    let says = match answer {
        Answer::Absent if target.named_by.is_none() => return None,
        // In a directory that is closed to this user, there may be none at all.
        Answer::Denied if target.named_by.is_none() && !is_there(url) => return None,
        Answer::Engine(server) => return Some(Finding::ok(ENGINE, format!("{server} on {url}")).of(url)),
        Answer::NotAsked(why) => {
            return Some(Finding::ok(ENGINE, format!("{name} was not asked: {why}")).of(url));
        }
        Answer::Absent => "there is no such socket".to_owned(),
        Answer::Denied => "permission denied".to_owned(),
        Answer::Dead(error) => format!("nobody listens: {error}"),
        Answer::Silent => format!("no answer within {} s", LIMIT.as_secs()),
        Answer::Strange(what) => format!("no answer of an engine: {what}"),
    };
    // Somebody relies on what a variable names.
    let severity = if target.named_by.is_some() { Severity::Warning } else { Severity::Note };
    let finding = Finding::new(ENGINE, severity, format!("{name}: {says}"))
        .of(url)
        .means("testenv's own servers need no containers; tests that start some themselves fail");
    Some(match (answer, target.named_by) {
        (Answer::Absent, Some(variable)) => {
            finding.advice("start the engine, or unset the variable").command(format!("unset {variable}"))
        }
        (Answer::Denied, _) => match group_of(url) {
            Some(group) => finding
                .advice("become a member of the socket's group, and log in again")
                .command(format!("{}usermod -aG {group} \"$USER\"", sudo())),
            None => finding.advice("have the socket's owner open it to your group"),
        },
        (Answer::Dead(_) | Answer::Silent, _) => finding.advice("start the engine anew").command(start(url)),
        _ => finding.advice("check what listens there"),
    })
}

/// Whether a socket is seen to be there.
fn is_there(url: &str) -> bool {
    url.strip_prefix("unix://").is_some_and(|path| fs::symlink_metadata(path).is_ok())
}

/// The group of a socket, if that is not root's.
fn group_of(url: &str) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    let gid = fs::metadata(url.strip_prefix("unix://")?).ok()?.gid();
    let groups = fs::read_to_string("/etc/group").ok()?;
    let mut groups = groups.lines().map(|line| line.split(':'));
    let name = groups
        .find_map(|mut group| Some((group.next()?, group.nth(1)?)).filter(|(_, id)| *id == gid.to_string()));
    name.map(|(name, _)| name.to_owned()).filter(|_| gid != 0)
}

/// The command that starts the engine of a socket.
fn start(url: &str) -> String {
    let user = if url.contains("/run/user/") { "systemctl --user" } else { "" };
    let systemctl = if user.is_empty() { format!("{}systemctl", sudo()) } else { user.to_owned() };
    match url {
        _ if url.contains(".colima") => "colima start".into(),
        _ if url.contains("podman") => format!("{systemctl} restart podman.socket"),
        _ => format!("{systemctl} restart docker"),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    fn target(url: &str, named_by: Option<&'static str>) -> Target {
        Target { url: url.into(), named_by }
    }

    /// What an engine that does this is taken for.
    fn asked(serve: impl FnOnce(UnixStream) + Send + 'static) -> Answer {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let listener = UnixListener::bind(&socket).unwrap();
        let server = thread::spawn(move || serve(listener.accept().unwrap().0));
        let answer = read(vec![target(&format!("unix://{}", socket.display()), None)]).remove(0).1;
        server.join().unwrap();
        answer
    }

    fn answers(mut stream: UnixStream, text: &str) {
        let mut request = [0; 512];
        let length = stream.read(&mut request).unwrap();
        assert!(request[..length].starts_with(b"GET /_ping HTTP/1.1\r\n"));
        let _ = stream.write_all(text.as_bytes());
    }

    #[test]
    fn engines_that_answer_are_named() {
        let docker = "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nServer: Docker/20.10.24 (linux)\r\n\r\nOK";
        assert_eq!(asked(move |it| answers(it, docker)), Answer::Engine("Docker/20.10.24 (linux)".into()));
        let bare = "HTTP/1.0 200 OK\r\n\r\nOK";
        assert_eq!(asked(move |it| answers(it, bare)), Answer::Engine("an engine".into()));
    }

    #[test]
    fn what_is_no_engine_is_told() {
        let error = asked(|it| answers(it, "HTTP/1.1 503 Service Unavailable\r\n\r\n"));
        assert_eq!(error, Answer::Strange("HTTP/1.1 503 Service Unavailable".into()));
        assert_eq!(asked(|it| answers(it, "")), Answer::Strange("it hung up".into()));
        let flood = asked(|mut it| while it.write_all(&[b'x'; 4096]).is_ok() {});
        assert!(matches!(flood, Answer::Strange(ref text) if text.len() == 80), "{flood:?}");
    }

    #[test]
    fn one_that_hangs_holds_nobody_up() {
        let (send, end) = mpsc::channel::<()>();
        let answer = asked(move |it| {
            thread::spawn(move || (end.recv(), it));
        });
        drop(send);
        assert_eq!(answer, Answer::Silent);
    }

    #[test]
    fn sockets_without_anybody_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("s");
        let url = format!("unix://{}", socket.display());
        assert_eq!(ask(&url), Answer::Absent);
        drop(UnixListener::bind(&socket).unwrap());
        assert!(matches!(ask(&url), Answer::Dead(_)));
        assert!(matches!(ask("ssh://me@host"), Answer::NotAsked(_)));
        assert!(matches!(ask("npipe://x"), Answer::Strange(_)));
        assert!(matches!(ask("tcp://127.0.0.1"), Answer::Strange(_)));
    }

    #[test]
    fn a_socket_is_looked_for_once() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(dir.path(), dir.path().join("same")).unwrap();
        fs::write(dir.path().join("docker.sock"), "").unwrap();
        let environment = BTreeMap::from([
            ("DOCKER_HOST".to_owned(), format!("unix://{}/same/docker.sock", dir.path().display())),
            ("XDG_RUNTIME_DIR".to_owned(), dir.path().display().to_string()),
        ]);
        let urls: Vec<_> = targets(&environment).into_iter().map(|target| target.url).collect();
        assert!(urls[0].contains("/same/"), "{urls:?}");
        assert_eq!(urls.iter().filter(|url| url.ends_with("docker.sock")).count(), 2, "{urls:?}");
    }

    #[test]
    fn what_a_variable_names_has_to_work() {
        let judge =
            |named_by, answer| judge(&[(target("unix:///x/docker.sock", named_by), answer)]).remove(0);
        assert_eq!(judge(None, Answer::Absent).severity, Severity::Ok);
        assert_eq!(
            judge(None, Answer::Engine("Docker/24".into())).seen,
            "Docker/24 on unix:///x/docker.sock"
        );
        assert_eq!(judge(None, Answer::Denied).severity, Severity::Ok, "nobody knows whether it is there");
        let there = [(target("unix:///dev/null", None), Answer::Denied)];
        assert_eq!(super::judge(&there).remove(0).severity, Severity::Note);
        let dead = judge(Some("DOCKER_HOST"), Answer::Dead("Connection refused".into()));
        assert_eq!(dead.severity, Severity::Warning);
        assert!(dead.commands[0].ends_with("systemctl restart docker"), "{dead:?}");
        let absent = judge(Some("DOCKER_HOST"), Answer::Absent);
        assert_eq!((absent.severity, absent.commands[0].as_str()), (Severity::Warning, "unset DOCKER_HOST"));
        assert!(judge(None, Answer::Silent).seen.contains("no answer within 2 s"));
    }
}
