//! Names of the queue of builds at NATS, as origin makes it and workers ask it. *Pure*.
//!
//! Workers run what strangers wrote, so they are in an account of their own that imports three subjects and nothing else.

/// The stream.
pub const STREAM: &str = "HX_BUILDS";
/// The consumer that workers share, so that each message goes to one of them.
pub const CONSUMER: &str = "workers";
/// What workers may ask of JetStream's API: for the consumer, and for a message of it.
pub const ASKS: [&str; 2] = [
    "CONSUMER.INFO.HX_BUILDS.workers",
    "CONSUMER.MSG.NEXT.HX_BUILDS.workers",
];
/// How workers call the part of JetStream's API that they may use: in an account without JetStream `$JS.API` means that account's own.
pub const API: &str = "hx.queue";
/// How they say what became of a message.
pub const ACK: &str = "$JS.ACK.HX_BUILDS.workers.>";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_subject_names_the_consumer() {
        let of_it = format!("{STREAM}.{CONSUMER}");
        for subject in ASKS.into_iter().chain([ACK]) {
            assert!(subject.contains(&of_it), "{subject}");
        }
    }
}
