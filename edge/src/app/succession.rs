//! What this edge does for a successor, and what it asks of a predecessor.

use std::sync::Arc;

use helix_service::shutdown::ShutdownHandle;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::story::Story;
use crate::handover::{Packets, Stage, Taken};
use crate::http3::{Letter, Post, ProcessTag};

/// Packets on their way to the predecessor. More are lost, as on the network.
const MAX_WAITING_LETTERS: usize = 1024;

/// What a successor takes over.
pub(super) struct Ours {
    pub(super) story: Arc<Story>,
    pub(super) following: Vec<JoinHandle<()>>,
    pub(super) post: Option<Arc<Post>>,
    pub(super) drain: Arc<ShutdownHandle>,
}

/// Follows the stages of handovers until one has come about, or nobody serves any more.
pub(super) async fn attend(mut stages: mpsc::Receiver<Stage>, mut ours: Ours) {
    while let Some(stage) = stages.recv().await {
        match stage {
            Stage::Pause(paused) => {
                ours.pause().await;
                // An error means that the successor is gone; that is told as a stage of its own.
                let _ = paused.send(());
            }
            Stage::Resume => ours.resume(),
            Stage::Drain(packets) => return ours.drain(packets).await,
        }
    }
}

impl Ours {
    async fn pause(&mut self) {
        tracing::info!(from = "following", to = "paused", "a successor takes over");
        for task in self.following.drain(..) {
            task.abort();
            // The end is what is waited for, whatever it was.
            let _ = task.await;
        }
    }

    fn resume(&mut self) {
        if !self.following.is_empty() {
            return;
        }
        match self.story.go_on() {
            Ok(tasks) => {
                tracing::info!(from = "paused", to = "following", "no successor");
                self.following = tasks;
            }
            Err(error) => tracing::error!(
                error = &error as &dyn std::error::Error,
                "records are not followed any more; this edge has to be started again"
            ),
        }
    }

    async fn drain(self, packets: mpsc::Receiver<crate::handover::Packet>) {
        tracing::info!(from = "paused", to = "draining", "the successor serves");
        if let Some(post) = &self.post {
            post.leave_socket();
        }
        self.drain.request();
        deliver(packets, self.post).await;
    }
}

/// Brings packets that the successor received to their core.
async fn deliver(mut packets: mpsc::Receiver<crate::handover::Packet>, post: Option<Arc<Post>>) {
    while let Some(packet) = packets.recv().await {
        if let Some(post) = &post {
            // Without room it is lost, as on the network.
            post.deliver(Letter {
                packet: packet.packet.into(),
                from: packet.from,
                to: packet.to,
                core: packet.core,
            });
        }
    }
}

/// Tells the predecessor that we serve, and sends it what comes for it from then on.
pub(super) async fn succeed(taken: Taken, post: Option<&Arc<Post>>) {
    let process = ProcessTag(taken.process);
    let packets = match tokio::task::spawn_blocking(move || taken.serving()).await {
        Ok(Ok(packets)) => packets,
        Ok(Err(error)) => {
            // It has left its sockets to us, and is gone.
            let error = &error as &dyn std::error::Error;
            return tracing::warn!(error, "the predecessor did not hear that we serve");
        }
        Err(_) => return,
    };
    tracing::info!("took over from the process before");
    if let Some(post) = post {
        let (letters, waiting) = mpsc::channel(MAX_WAITING_LETTERS);
        post.forward(process, letters);
        tokio::task::spawn_blocking(move || forward(packets, waiting));
    }
}

/// Ends with the predecessor.
fn forward(mut packets: Packets, mut letters: mpsc::Receiver<Letter>) {
    while let Some(Letter {
        packet,
        from,
        to,
        core,
    }) = letters.blocking_recv()
    {
        if packets.send(from, to, core, &packet).is_err() {
            return;
        }
    }
}
