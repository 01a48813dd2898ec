//! The lean lane: HTTP/1.1 to upstreams, read and written here.
//!
//! One task carries both directions. Connections are kept for each core ([`pool`]) and looked at before they are used
//! again; a request that may be repeated is sent once more when one turns out to be closed all the same. The response
//! is parsed as strictly as requests are ([`helix_framing`]), so that a server that is wrong about where it ends can
//! only spoil its own answer: a connection on which anything follows a response is never used again.
//! Tunnels and HTTP/2 are not carried here.

mod connection;
mod incoming;
mod pool;
mod request;
mod tls;
mod trip;
mod upload;

pub(crate) use self::pool::count_in as count_idle_in;
pub(super) use self::tls::{Trust, shake_http2};
use self::trip::Trip;
pub(super) use self::upload::Upload;
use super::call::Call;
use super::failure::Failure;
use super::group::Picked;
use crate::exchange::{Ended, Exchange};

/// Sends `call` to the server that was picked, and its response to the client.
///
/// # Errors
/// When nothing of a response has reached the client.
pub(super) async fn carry<E: Exchange>(
    call: &Call<'_>,
    picked: &Picked,
    upload: &mut Upload,
    exchange: &mut E,
) -> Result<Ended, Failure> {
    if let Some(kept) = pool::take(picked.server(), picked.at) {
        match Trip::new(call, picked, upload, exchange, kept).run().await {
            // Closed just as it was used again, which says nothing about the server.
            Err(failure) if failure.repeats => {}
            done => return done,
        }
    }
    pool::count_new();
    let fresh = connection::connect(picked).await?;
    Trip::new(call, picked, upload, exchange, fresh).run().await
}
