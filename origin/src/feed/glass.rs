//! What operators wrote to a stream while no origin led.
//!
//! Read before our term goes into the stream, and once more after it, before anything else does: an operator's record is
//! conditional on the operator's own term, so what is not there by then is refused by the server, and whoever writes it is told.

use async_nats::jetstream::stream::{DirectGetErrorKind, Stream};
use helix_routing::key::Scope;
use helix_routing::record::SiteRecord;
use helix_routing::seal::KeyRole;
use helix_routing::wire::Wire;

use super::Inner;
use super::streams::{StreamError, link};
use crate::rollout::Place;

/// Takes over every override from this sequence on. `is_known` says that SQL knows this life of the stream up to there.
pub(super) async fn adopt(
    inner: &Inner,
    scope: &Scope,
    stream: &Stream,
    (from, is_known): (u64, bool),
) -> Result<(), StreamError> {
    let (Scope::Region(region), Some(adopter)) = (scope, &inner.policy.operators.adopter) else {
        return Ok(());
    };
    let name = scope.stream();
    let subject = format!("{}cut.>", scope.stored_prefix());
    let mut next = from;
    loop {
        let found = stream
            .direct_get_next_for_subject(subject.clone(), Some(next))
            .await;
        let message = match found {
            Ok(message) => message,
            Err(error) if error.kind() == DirectGetErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(link("read overrides", &name)(error)),
        };
        next = message.sequence + 1;
        let key = message.subject.strip_prefix(&scope.stored_prefix());
        let signed = inner.ring.verify(KeyRole::Operator, &message.payload).ok();
        let signed = signed.filter(|seal| seal.stream == name && Some(seal.key.as_str()) == key);
        let record = signed.and_then(|seal| SiteRecord::decode(&seal.body).ok());
        let Some(record) = record.filter(|record| record.region == *region) else {
            continue;
        };
        let place = Place {
            stream: &name,
            sequence: message.sequence,
            is_new: is_known,
        };
        let adopted = adopter.signed(record, &place).await;
        adopted.map_err(|source| StreamError::Adopt {
            stream: name.clone(),
            source: Box::new(source),
        })?;
    }
}
