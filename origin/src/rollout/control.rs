//! What people ask of a rollout that runs: told to its driver, which alone steps it, and answered once it is saved.

use std::time::Duration;

use helix_routing::api::RolloutView;
use helix_routing::id::RolloutId;
use helix_routing::rollout::{Control, Refused};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

use super::driver::Message;
use super::{Conductor, DRIVER_POLL, RolloutError, saved};
use crate::auth::Caller;
use crate::idempotency::{KeyError, Repeatable};

/// How long a driver may take to answer: it saves between two other steps.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

/// A wish, and where its answer goes.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) control: Control,
    pub(super) caller: Caller,
    pub(super) repeatable: Option<Repeatable>,
    pub(super) answer: oneshot::Sender<Result<RolloutView, ControlError>>,
}

/// It was not done.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// There is no such rollout.
    #[error("there is no rollout {0}")]
    Unknown(RolloutId),
    /// The machine says why not.
    #[error("rollout {rollout} was not {}: {refused}", .control.verb())]
    Refused {
        /// The rollout.
        rollout: RolloutId,
        /// What was asked.
        control: Control,
        /// Why not.
        refused: Refused,
    },
    /// Its driver did not answer.
    #[error("rollout {0} is being taken up: try again")]
    Away(RolloutId),
    /// The idempotency key cannot be used.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It could not be read or saved.
    #[error(transparent)]
    Rollout(#[from] RolloutError),
}

impl Asked {
    /// What the audit log says of it besides who and what.
    pub(super) fn detail(&self) -> Option<String> {
        match &self.control {
            Control::Pause { reason } | Control::Abort { reason } => reason.clone(),
            Control::Approve { stage } => Some(format!("stage {stage}")),
            Control::Resume => None,
        }
    }

    pub(super) const fn action(&self) -> &'static str {
        match self.control {
            Control::Pause { .. } => "rollout.pause",
            Control::Resume => "rollout.resume",
            Control::Approve { .. } => "rollout.approve",
            Control::Abort { .. } => "rollout.abort",
        }
    }
}

impl Conductor {
    /// Does what `caller` asks of a rollout, and answers how it is then. Asked again, it changes nothing.
    ///
    /// # Errors
    /// When it cannot be done; then nothing has changed, unless the driver did not answer in time.
    pub async fn control(
        &self,
        rollout: &RolloutId,
        control: Control,
        caller: Caller,
        repeatable: Option<Repeatable>,
    ) -> Result<RolloutView, ControlError> {
        if let Some(repeatable) = &repeatable
            && let Some(answer) = repeatable.answer(&self.0.store).await?
        {
            return Ok(answer);
        }
        let inbox = self.driver_of(rollout, &control).await?;
        let (answer, answered) = oneshot::channel();
        let asked = Asked {
            control,
            caller,
            repeatable,
            answer,
        };
        let away = || ControlError::Away(rollout.clone());
        let told = async {
            let message = Message::Control(Box::new(asked));
            inbox.send(message).await.map_err(|_| away())?;
            answered.await.map_err(|_| away())?
        };
        timeout(ANSWER_LIMIT, told).await.map_err(|_| away())?
    }

    async fn driver_of(
        &self,
        rollout: &RolloutId,
        control: &Control,
    ) -> Result<tokio::sync::mpsc::Sender<Message>, ControlError> {
        let give_up = Instant::now() + ANSWER_LIMIT;
        loop {
            let saved = {
                let mut connection = self.0.store.read().await.map_err(RolloutError::from)?;
                saved::load(&mut connection, rollout).await?
            };
            let Some(saved) = saved else {
                return Err(ControlError::Unknown(rollout.clone()));
            };
            if saved.machine.outcome().is_some() {
                return Err(ControlError::Refused {
                    rollout: rollout.clone(),
                    control: control.clone(),
                    refused: Refused::Over,
                });
            }
            let site = saved.machine.site();
            let inbox = {
                let drivers = self.drivers();
                let handle = drivers
                    .get(site)
                    .filter(|handle| handle.rollout == *rollout);
                handle.map(|handle| handle.inbox.clone())
            };
            if let Some(inbox) = inbox {
                return Ok(inbox);
            }
            // Saved a moment ago: its driver is about to start.
            if Instant::now() > give_up {
                return Err(ControlError::Away(rollout.clone()));
            }
            sleep(DRIVER_POLL).await;
        }
    }
}
