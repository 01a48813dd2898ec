//! The two modes in which the worker's own program runs on the way into a sandbox.
//!
//! `enter` joins control groups, gives up what it may, and becomes bubblewrap. `init` is the first process inside: it runs one
//! shell line, reaps what is left behind by others, passes signals on, and leads a port of the loopback to the socket of the
//! egress proxy. When it ends, or whoever gave the order is gone, the kernel ends everything inside.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, ExitCode, Stdio};
use std::sync::Arc;
use std::thread;

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{Gid, Pid, Uid, setgid, setgroups, setuid};
use tokio::net::{TcpListener, UnixStream as Socket};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;

use super::confine::confine;
use super::order::{MAX_MESSAGE_BYTES, Order, ProcessLimits, Relay, Report};

/// First arguments by which the program is started as one of these.
pub(crate) const ENTER: &str = "sandbox-enter";
/// As above.
pub(crate) const INIT: &str = "sandbox-init";

/// Connections that are led on at once; more wait. Package managers open some dozens.
const MAX_RELAYED: usize = 256;
/// Files that a process may have open: watchers and bundlers take thousands.
const OPEN_FILES: u64 = 16_384;
/// The code of a sandbox that could not be set up.
const NOT_SET_UP: u8 = 125;

/// Runs one of the two modes if the arguments ask for it, and gives the code to end with. To be called first of all in `main`.
#[must_use]
pub fn run_if_asked() -> Option<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let mode = arguments.next()?;
    let ended = match mode.to_str()? {
        ENTER => enter(arguments),
        INIT => init(),
        _ => return None,
    };
    Some(ended.unwrap_or_else(|error| {
        // The worker reads this, since nothing else is said before the start.
        let _ = writeln!(io::stderr(), "sandbox: {error}");
        ExitCode::from(NOT_SET_UP)
    }))
}

/// `[--group FOLDER]… [--user UID:GID] -- PROGRAM ARGUMENT…`
fn enter(mut arguments: impl Iterator<Item = OsString>) -> io::Result<ExitCode> {
    let invalid = || io::Error::from(io::ErrorKind::InvalidInput);
    let mut user = None;
    loop {
        let option = arguments.next().ok_or_else(invalid)?;
        match option.to_str() {
            Some("--") => break,
            Some("--group") => {
                let folder = std::path::PathBuf::from(arguments.next().ok_or_else(invalid)?);
                // 0 is whoever writes.
                fs::write(folder.join("cgroup.procs"), "0")?;
            }
            Some("--user") => user = arguments.next().and_then(|text| read_user(text.to_str()?)),
            _ => return Err(invalid()),
        }
    }
    if let Some((uid, gid)) = user {
        setgroups(&[])?;
        setgid(gid)?;
        setuid(uid)?;
    }
    let program = arguments.next().ok_or_else(invalid)?;
    Err(Command::new(program).args(arguments).exec())
}

fn read_user(text: &str) -> Option<(Uid, Gid)> {
    let (uid, gid) = text.split_once(':')?;
    Some((
        Uid::from_raw(uid.parse().ok()?),
        Gid::from_raw(gid.parse().ok()?),
    ))
}

fn init() -> io::Result<ExitCode> {
    // What is in this process is not for those it starts.
    prctl::set_dumpable(false)?;
    let control = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let order = read_order(&control)?;
    limit(order.limits)?;
    // Before there is a second thread.
    confine(&order.writable)?;
    let relay = order.relay.clone();
    let watched = control.try_clone()?;
    let (ready, is_ready) = std::sync::mpsc::channel();
    thread::spawn(move || attend(watched, relay, &ready));
    is_ready
        .recv()
        .map_err(|_| io::Error::other("the relay to the egress proxy did not start"))??;
    say(&control, Report::Started)?;
    let report = run(&order.line, &order.folder, &order.env)?;
    say(&control, report)?;
    // Its end is the end of everything inside.
    Ok(ExitCode::SUCCESS)
}

fn read_order(control: &UnixStream) -> io::Result<Order> {
    let mut line = String::new();
    BufReader::new(control.take(MAX_MESSAGE_BYTES as u64)).read_line(&mut line)?;
    serde_json::from_str(&line).map_err(io::Error::other)
}

fn say(mut control: &UnixStream, report: Report) -> io::Result<()> {
    let mut line = serde_json::to_vec(&report)?;
    line.push(b'\n');
    control.write_all(&line)
}

fn limit(limits: ProcessLimits) -> io::Result<()> {
    let mut set = vec![
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, limits.file_bytes),
        (Resource::RLIMIT_NOFILE, OPEN_FILES),
    ];
    set.extend(limits.processes.map(|most| (Resource::RLIMIT_NPROC, most)));
    set.extend(
        limits
            .memory_bytes
            .map(|most| (Resource::RLIMIT_DATA, most)),
    );
    for (resource, most) in set {
        let (_, hard) = getrlimit(resource)?;
        let most = most.min(hard);
        setrlimit(resource, most, most)?;
    }
    Ok(())
}

/// Runs the line to its end, and reaps whatever else ends before.
fn run(line: &str, folder: &str, env: &BTreeMap<String, String>) -> io::Result<Report> {
    let child = Command::new("/bin/sh")
        .args(["-c", line])
        .current_dir(folder)
        .env_clear()
        .envs(env)
        .stdin(Stdio::null())
        .spawn()?;
    let line = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    loop {
        match waitpid(None, None) {
            Ok(WaitStatus::Exited(pid, code)) if pid == line => return Ok(Report::Exited(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == line => {
                return Ok(Report::Signalled(signal as i32));
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Everything that goes on beside: signals, the relay, and whether the worker is still there.
fn attend(
    control: UnixStream,
    relay: Option<Relay>,
    ready: &std::sync::mpsc::Sender<io::Result<()>>,
) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let served = runtime.and_then(|runtime| {
        runtime.block_on(async {
            let listener = match &relay {
                Some(relay) => Some(TcpListener::bind(("127.0.0.1", relay.port)).await?),
                None => None,
            };
            let terminate = signal(SignalKind::terminate())?;
            let interrupt = signal(SignalKind::interrupt())?;
            control.set_nonblocking(true)?;
            let control = Socket::from_std(control)?;
            let _ = ready.send(Ok(()));
            tokio::select! {
                () = pass_on(terminate, Signal::SIGTERM) => {}
                () = pass_on(interrupt, Signal::SIGINT) => {}
                () = gone(&control) => {}
                () = lead_on(listener, relay.as_ref()) => {}
            }
            Ok(())
        })
    });
    if let Err(error) = served {
        // Nobody waits for it any more if it comes after the start.
        let _ = ready.send(Err(error));
        return;
    }
    // Only the worker's end comes here: nothing inside is to outlive it.
    let _ = kill(Pid::from_raw(-1), Signal::SIGKILL);
}

async fn pass_on(mut heard: tokio::signal::unix::Signal, signal: Signal) {
    while heard.recv().await.is_some() {
        // To everybody inside but this process.
        let _ = kill(Pid::from_raw(-1), signal);
    }
    std::future::pending().await
}

/// Returns when the worker's end of the control connection is closed.
async fn gone(control: &Socket) {
    let mut byte = [0; 1];
    loop {
        if control.readable().await.is_err() {
            return;
        }
        match control.try_read(&mut byte) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => return,
        }
    }
}

async fn lead_on(listener: Option<TcpListener>, relay: Option<&Relay>) {
    let (Some(listener), Some(relay)) = (listener, relay) else {
        return std::future::pending().await;
    };
    let room = Arc::new(Semaphore::new(MAX_RELAYED));
    loop {
        let permit = Arc::clone(&room).acquire_owned().await;
        // Too many open files pass as connections end.
        let Ok((mut inside, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        let socket = relay.socket.clone();
        tokio::spawn(async move {
            let _permit = permit;
            if let Ok(mut outside) = Socket::connect(socket).await {
                // Whoever is inside sees how the connection ends.
                let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
            }
        });
    }
}
