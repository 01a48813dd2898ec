//! The sandbox on this machine: what a build cannot reach, what it is held to, and that nothing of it is left.

use std::fs;
use std::time::Duration;

use crate::place::{Place, bwrap, processes};
use helix_build::egress::{Egress, EgressConfig};
use helix_build::sandbox::{Ended, Outcome};
use tokio::time::Instant;

macro_rules! place {
    () => {
        match bwrap() {
            Some(bwrap) => Place::new(bwrap),
            None => return,
        }
    };
}

fn exited(outcome: &Outcome, code: i32) {
    assert_eq!(outcome.ended, Ended::Exited(code), "{outcome:?}");
}

#[tokio::test]
async fn a_line_runs_as_somebody_in_its_own_space_and_its_code_is_told() {
    let place = place!();
    let mut task = place
        .task("id -u; pwd; echo hello > file; echo $GREETING; echo hunter22-hunter22; cat; exit 3");
    task.env
        .insert("GREETING".to_owned(), "hi there".to_owned());
    exited(&place.run(&task).await.unwrap(), 3);
    assert_eq!(place.printed(), "1000\n/build\nhi there\n[hidden TOKEN]\n");
    assert_eq!(
        fs::read_to_string(place.space().join("file")).unwrap(),
        "hello\n"
    );
}

#[tokio::test]
async fn nothing_outside_is_seen_written_or_reached() {
    let place = place!();
    let beside = place.folder.path().join("other");
    fs::create_dir(&beside).unwrap();
    fs::write(beside.join("secret"), "of another build").unwrap();
    let other = beside.join("secret").display().to_string();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let line = format!(
        "cat {other} && echo SEEN; cat /etc/shadow && echo SEEN; \
         for place in / /usr /etc /dev /run /run/helix /usr/bin; do (echo x > $place/written) 2>/dev/null && echo WROTE $place; done; \
         (echo x > /dev/tcp/127.0.0.1/{port}) 2>/dev/null && echo REACHED; \
         bash -c 'echo x > /dev/tcp/127.0.0.1/{port}' 2>/dev/null && echo REACHED; \
         (echo 1 > /proc/sys/kernel/core_uses_pid) 2>/dev/null && echo SYSCTL; \
         mount -t tmpfs none /tmp 2>/dev/null && echo MOUNTED; \
         unshare -U true 2>/dev/null && echo NAMESPACE; unshare -m true 2>/dev/null && echo NAMESPACE; keyctl show 2>/dev/null && echo KEYS; \
         mknod /build/device c 0 0 2>/dev/null && echo DEVICE; \
         kill -9 1 2>/dev/null; cat /proc/1/environ 2>/dev/null | grep -c PATH; ls /proc | grep -c '^[0-9]*$' | xargs test 8 -gt && echo ALONE; env | grep -c CARGO; echo END"
    );
    exited(&place.run(&place.task(&line)).await.unwrap(), 0);
    let printed = place.printed();
    for word in [
        "SEEN",
        "WROTE",
        "REACHED",
        "SYSCTL",
        "MOUNTED",
        "NAMESPACE",
        "KEYS",
        "DEVICE",
    ] {
        assert!(!printed.contains(word), "{printed}");
    }
    assert!(
        printed.contains("ALONE") && printed.ends_with("0\nEND\n"),
        "{printed}"
    );
}

#[tokio::test]
async fn the_proxy_is_the_only_way_out_and_names_what_it_refuses() {
    let place = place!();
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = server.local_addr().unwrap().port();
    std::thread::spawn(move || {
        use std::io::{Read as _, Write as _};
        for client in server.incoming() {
            let mut client = client.unwrap();
            let _ = client.read(&mut [0; 1024]);
            let _ = client.write_all(
                b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\nconnection: close\r\n\r\ninside",
            );
        }
    });
    let config = EgressConfig {
        allow: vec!["127.0.0.0/8".parse().unwrap()],
        ports: vec![port],
    };
    let control = place.folder.path().join("control/egress");
    fs::create_dir(&control).unwrap();
    let journal = place.journal.clone();
    let tell = move |text: &str| journal.say(helix_routing::api::BuildStep::Build, text);
    let egress = Egress::start(
        &control.join("egress.sock"),
        &["localhost".to_owned()],
        &config,
        tell,
    )
    .unwrap();
    let line = format!(
        "exec 3<>/dev/tcp/127.0.0.1/3128; printf 'GET http://localhost:{port}/ HTTP/1.1\\r\\n\\r\\n' >&3; cat <&3; echo; \
         exec 3<>/dev/tcp/127.0.0.1/3128; printf 'CONNECT evil.test:443 HTTP/1.1\\r\\n\\r\\n' >&3; head -1 <&3"
    );
    let mut task = place.task(&format!("bash -c \"{}\"", line.replace('"', "\\\"")));
    task.online = true;
    exited(&place.run(&task).await.unwrap(), 0);
    let printed = place.printed();
    assert!(
        printed.contains("inside") && printed.contains("403 Forbidden"),
        "{printed}"
    );
    assert!(
        printed.contains("refused: evil.test is not among"),
        "{printed}"
    );
    assert_eq!(egress.refused(), ["evil.test"]);
}

#[tokio::test]
async fn hanging_and_silent_builds_end_at_their_limits_with_all_that_they_started() {
    let place = place!();
    let word = format!("86400.{}", std::process::id());
    let mut task = place.task(&format!(
        "(trap '' TERM; setsid sleep {word} & sleep {word} & echo started; sleep {word})"
    ));
    task.limits.silence = Duration::from_secs(1);
    let start = Instant::now();
    let outcome = place.run(&task).await.unwrap();
    assert_eq!(outcome.ended, Ended::Silent);
    assert!(
        outcome
            .complaint(&task.limits)
            .unwrap()
            .contains("printed nothing for 1 s")
    );
    let mut task = place.task(&format!(
        "sleep {word} & while true; do echo tick; sleep 0.1; done"
    ));
    task.limits.until = Instant::now() + Duration::from_secs(1);
    assert_eq!(place.run(&task).await.unwrap().ended, Ended::Late);
    assert!(start.elapsed() < Duration::from_secs(20));
    assert_eq!(processes(&word), 0);
}

#[tokio::test]
async fn what_a_line_leaves_behind_ends_with_it() {
    let place = place!();
    let word = format!("86401.{}", std::process::id());
    let task = place.task(&format!(
        "setsid sleep {word} & setsid sleep {word} & echo done"
    ));
    exited(&place.run(&task).await.unwrap(), 0);
    assert_eq!(processes(&word), 0);
}

#[tokio::test]
async fn a_stop_ends_it_and_says_why() {
    let place = place!();
    let word = format!("86402.{}", std::process::id());
    let task = place.task(&format!("echo ready; sleep {word}"));
    let stopped = async {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !place.printed().contains("ready") && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        place
            .stop
            .send_replace(Some("a newer commit came".to_owned()));
    };
    let (outcome, ()) = tokio::join!(place.run(&task), stopped);
    assert_eq!(
        outcome.unwrap().ended,
        Ended::Asked("a newer commit came".to_owned())
    );
    assert_eq!(processes(&word), 0);
}

#[tokio::test]
async fn a_log_flood_is_cut_and_the_build_goes_on() {
    let place = place!();
    let task = place.task("yes flood | head -c 20000000; echo; echo after > file");
    exited(&place.run(&task).await.unwrap(), 0);
    place.journal.close(helix_routing::api::BuildStep::Build);
    let printed = place.printed();
    assert!(printed.len() < 110_000 && printed.contains("were printed and dropped"));
    assert!(place.space().join("file").exists());
}

#[tokio::test]
async fn who_fills_the_disk_is_ended() {
    let place = place!();
    let mut task = place.task("i=0; while true; do i=$((i+1)); dd if=/dev/zero of=fill$i bs=1M count=8 2>/dev/null; echo $i; sleep 0.02; done");
    task.limits.disk_bytes = 64 << 20;
    let outcome = place.run(&task).await.unwrap();
    assert_eq!(outcome.ended, Ended::Disk, "{}", place.printed());
    assert!(outcome.complaint(&task.limits).unwrap().contains("on disk"));
    // One file alone is held by the kernel.
    let mut task = place.task("rm -f fill*; dd if=/dev/zero of=one bs=1M count=200 2>/dev/null; echo code $?; test $(stat -c %s one) -le 16777216");
    task.limits.disk_bytes = 16 << 20;
    exited(&place.run(&task).await.unwrap(), 0);
}

#[tokio::test]
async fn a_fork_bomb_stays_in_its_box() {
    let place = place!();
    let word = format!("86403.{}", std::process::id());
    let mut task = place.task(&format!(
        "bomb() {{ sleep {word} & bomb & bomb & wait; }}; bomb; sleep {word}"
    ));
    task.limits.processes = 64;
    task.limits.until = Instant::now() + Duration::from_secs(3);
    let outcome = place.run(&task).await.unwrap();
    assert!(!matches!(outcome.ended, Ended::Exited(0)), "{outcome:?}");
    assert_eq!(processes(&word), 0);
    // The machine is still there for the next.
    exited(&place.run(&place.task("true")).await.unwrap(), 0);
}

#[tokio::test]
async fn who_takes_too_much_memory_is_ended_and_told_so() {
    let place = place!();
    let mut task = place.task("head -c 400000000 /dev/zero | tail -c 399999999 > /dev/null");
    task.limits.memory_bytes = 64 << 20;
    let outcome = place.run(&task).await.unwrap();
    let complaint = outcome.complaint(&task.limits).unwrap();
    if place
        .engine
        .described(&task.limits)
        .contains("memory and processes are limited by control groups")
    {
        assert!(
            complaint.contains("ran out of the 67108864 bytes of memory"),
            "{complaint}"
        );
    }
}

#[tokio::test]
async fn a_sandbox_that_cannot_be_set_up_says_why() {
    let place = place!();
    let mut task = place.task("true");
    task.mounts.push(helix_build::sandbox::Mount {
        outside: place.folder.path().join("nowhere"),
        inside: "/x".to_owned(),
        writable: false,
    });
    let error = place.run(&task).await.unwrap_err().to_string();
    assert!(error.contains("nowhere"), "{error}");
}

#[tokio::test]
async fn groups_of_builds_that_were_cut_off_are_swept() {
    let start = format!("helix-sweep-{}-", std::process::id());
    let own = fs::read_to_string("/proc/self/cgroup").unwrap();
    let path = own.lines().find_map(|line| line.split_once(":pids:"));
    let base = std::path::Path::new("/sys/fs/cgroup/pids")
        .join(path.map_or("", |(_, path)| path.trim_start_matches('/')));
    let group = base.join(format!("{start}one"));
    if fs::create_dir(&group).is_err() {
        eprintln!("skipped: no control groups of version 1 can be made here");
        return;
    }
    helix_build::sandbox::sweep(&start).await;
    assert!(!group.exists());
}
