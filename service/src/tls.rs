//! Which cryptography TLS takes, where a library leaves that to the process.

use async_nats::rustls::crypto::aws_lc_rs;

/// Lets TLS take aws-lc wherever nobody says otherwise: two are linked, and libraries that have to choose stop the process. To be called
/// before the first connection; once is as good as often.
pub fn choose_provider() {
    // An error means that one was chosen already.
    let _ = aws_lc_rs::default_provider().install_default();
}
