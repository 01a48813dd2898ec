//! Watches a running task: its output, its end, its limits, and whether it is to be stopped.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use tokio::io::{
    AsyncBufReadExt as _, AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, BufReader,
};
use tokio::net::UnixStream;
use tokio::process::Child;
use tokio::sync::watch as channel;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::order::{Order, Report};
use super::{Ended, Limits, SandboxError, disk};
use crate::log::Printer;

/// Read at a time of what a task prints.
const PART_BYTES: usize = 64 * 1024;
/// How long what is left in the pipes may take after the end: nobody writes any more.
const REST_WITHIN: Duration = Duration::from_secs(5);
/// What is kept of what bubblewrap says before it stands.
const SET_UP_BYTES: usize = 4 * 1024;
/// How often is looked at what is free on the disk.
const DISK_EACH: Duration = Duration::from_millis(500);
/// How often the space is counted, if that is quick; else ten times what it takes.
const COUNT_EACH: Duration = Duration::from_secs(5);

/// What a task is watched with.
#[derive(Debug)]
pub(super) struct Watch {
    pub(super) limits: Limits,
    pub(super) printers: [Printer; 2],
    pub(super) stop: channel::Receiver<Option<String>>,
}

/// How watching went on.
enum Event {
    /// The line has ended, or was ended.
    Ended(Ended),
    /// The sandbox stands.
    Started,
    /// The control connection is gone.
    Gone,
    /// Bytes of a stream, or its end.
    Printed(usize, io::Result<usize>),
}

impl Watch {
    /// A task in a sandbox, which tells of itself over `control`.
    pub(super) async fn sandbox(
        mut self,
        mut child: Child,
        control: std::os::unix::net::UnixStream,
        order: &Order,
    ) -> Result<Ended, SandboxError> {
        control.set_nonblocking(true).map_err(SandboxError::Watch)?;
        let control = UnixStream::from_std(control).map_err(SandboxError::Watch)?;
        let (heard, mut told) = control.into_split();
        let mut text = serde_json::to_vec(order).expect("texts and numbers are JSON");
        text.push(b'\n');
        // Who does not read it is gone, which is seen below.
        let _ = told.write_all(&text).await;
        let ended = self.follow(&mut child, Some(BufReader::new(heard))).await;
        // The first process inside ends with this connection, and all others with that one.
        drop(told);
        let _ = child.start_kill();
        let _ = child.wait().await;
        self.rest(&mut child).await;
        ended
    }

    /// A task as a process group of this machine.
    pub(super) async fn open(mut self, mut child: Child) -> Result<Ended, SandboxError> {
        let group = child.id().and_then(|pid| i32::try_from(pid).ok());
        let ended = self.follow(&mut child, None).await;
        if let Some(group) = group {
            // None left is what is wanted.
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
        let _ = child.wait().await;
        self.rest(&mut child).await;
        ended
    }

    async fn follow(
        &mut self,
        child: &mut Child,
        mut control: Option<BufReader<tokio::net::unix::OwnedReadHalf>>,
    ) -> Result<Ended, SandboxError> {
        let mut parts = [vec![0; PART_BYTES], vec![0; PART_BYTES]];
        let (mut out, mut err) = (child.stdout.take(), child.stderr.take());
        let mut full = Box::pin(fills(
            self.limits.disk_folder.clone(),
            self.limits.disk_bytes,
        ));
        let (mut started, mut said, mut last) = (control.is_none(), Vec::new(), Instant::now());
        let ended = loop {
            let [first, second] = &mut parts;
            let event = tokio::select! {
                biased;
                reason = asked(&mut self.stop) => Event::Ended(Ended::Asked(reason)),
                event = report(&mut control), if control.is_some() => event,
                status = child.wait(), if control.is_none() => Event::Ended(exit(status)),
                () = sleep_until(self.limits.until) => Event::Ended(Ended::Late),
                () = sleep_until(last + self.limits.silence) => Event::Ended(Ended::Silent),
                () = &mut full => Event::Ended(Ended::Disk),
                read = part(out.as_mut(), first) => Event::Printed(0, read),
                read = part(err.as_mut(), second) => Event::Printed(1, read),
            };
            match event {
                Event::Ended(ended) => break Ok(ended),
                Event::Started => {
                    started = true;
                    last = Instant::now();
                }
                Event::Gone => break Err(()),
                Event::Printed(stream, Ok(bytes @ 1..)) if started => {
                    last = Instant::now();
                    self.printers[stream].print(&parts[stream][..bytes]);
                }
                Event::Printed(stream, Ok(bytes @ 1..)) => {
                    let room = SET_UP_BYTES.saturating_sub(said.len());
                    said.extend_from_slice(&parts[stream][..bytes.min(room)]);
                }
                Event::Printed(0, _) => out = None,
                Event::Printed(_, _) => err = None,
            }
        };
        (child.stdout, child.stderr) = (out, err);
        ended.map_err(|()| self.set_up_failed(said, child, started))
    }

    /// The sandbox is gone and said nothing of how the line ended.
    fn set_up_failed(&self, mut said: Vec<u8>, child: &mut Child, started: bool) -> SandboxError {
        if started {
            return SandboxError::Watch(io::Error::other(
                "the first process inside the sandbox is gone",
            ));
        }
        if let Some(err) = &mut child.stderr {
            let mut part = vec![0; SET_UP_BYTES];
            // It has ended: what it said is there.
            if let Some(Ok(read)) = futures_util::FutureExt::now_or_never(err.read(&mut part)) {
                said.extend_from_slice(&part[..read]);
            }
        }
        SandboxError::SetUp {
            reason: String::from_utf8_lossy(&said).trim().to_owned(),
        }
    }

    /// What is still in the pipes.
    async fn rest(&mut self, child: &mut Child) {
        let [out, err] = &mut self.printers;
        // What a process that got away still writes is not waited for.
        let _ = timeout(REST_WITHIN, async {
            tokio::join!(
                drain(child.stdout.take(), out),
                drain(child.stderr.take(), err)
            );
        })
        .await;
        out.finish();
        err.finish();
    }
}

async fn drain(stream: Option<impl AsyncRead + Unpin>, printer: &mut Printer) {
    let Some(mut stream) = stream else { return };
    let mut part = vec![0; PART_BYTES];
    while let Ok(read @ 1..) = stream.read(&mut part).await {
        printer.print(&part[..read]);
    }
}

/// The next bytes of a stream that is still open.
async fn part(stream: Option<&mut (impl AsyncRead + Unpin)>, part: &mut [u8]) -> io::Result<usize> {
    match stream {
        Some(stream) => stream.read(part).await,
        None => std::future::pending().await,
    }
}

/// Why to stop, once there is a reason.
async fn asked(stop: &mut channel::Receiver<Option<String>>) -> String {
    let reason = match stop.wait_for(Option::is_some).await {
        Ok(reason) => reason.clone(),
        // Nobody can ask any more.
        Err(_) => None,
    };
    match reason {
        Some(reason) => reason,
        None => std::future::pending().await,
    }
}

async fn report(control: &mut Option<BufReader<tokio::net::unix::OwnedReadHalf>>) -> Event {
    let Some(control) = control else {
        return std::future::pending().await;
    };
    // Reports are short and written at once, so none is cut by a wait that is given up.
    let mut line = Vec::new();
    match control.read_until(b'\n', &mut line).await {
        Ok(1..) => match serde_json::from_slice(&line) {
            Ok(Report::Started) => Event::Started,
            Ok(Report::Exited(code)) => Event::Ended(Ended::Exited(code)),
            Ok(Report::Signalled(signal)) => Event::Ended(Ended::Signalled(signal)),
            Err(_) => Event::Gone,
        },
        Ok(0) | Err(_) => Event::Gone,
    }
}

fn exit(status: io::Result<std::process::ExitStatus>) -> Ended {
    use std::os::unix::process::ExitStatusExt as _;
    match status {
        Ok(status) => match (status.code(), status.signal()) {
            (Some(code), _) => Ended::Exited(code),
            (None, signal) => Ended::Signalled(signal.unwrap_or_default()),
        },
        Err(_) => Ended::Exited(-1),
    }
}

/// Returns once `folder` takes more than `limit` bytes. Looks at what is free first, since that costs nothing, and counts at once
/// when much of it is gone.
async fn fills(folder: Option<PathBuf>, limit: u64) {
    let Some(folder) = folder else {
        return std::future::pending().await;
    };
    let mut free_then = disk::free(&folder);
    let (mut counted, mut wait) = (Instant::now(), COUNT_EACH);
    loop {
        sleep(DISK_EACH).await;
        let gone = free_then
            .zip(disk::free(&folder))
            .map_or(0, |(then, now)| then.saturating_sub(now));
        if gone < limit / 8 && counted.elapsed() < wait {
            continue;
        }
        let start = Instant::now();
        if over(&folder, limit).await {
            return;
        }
        wait = COUNT_EACH.max(start.elapsed() * 10);
        (counted, free_then) = (Instant::now(), disk::free(&folder));
    }
}

async fn over(folder: &Path, limit: u64) -> bool {
    let folder = folder.to_owned();
    let counted = tokio::task::spawn_blocking(move || disk::taken(&folder, limit)).await;
    counted.is_ok_and(|bytes| bytes > limit)
}
