//! Hosts: whatever is taken is canonical, and reads back as itself.
#![no_main]

use helix_routing::host::{Host, HostPattern, under_base};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let base: Host = "helix.localhost".parse().expect("a host");
    if let Ok(host) = Host::from_authority(text) {
        let written = host.to_string();
        assert_eq!(written.parse::<Host>().as_ref(), Ok(&host), "{text:?}");
        assert!(
            !written.bytes().any(|byte| byte.is_ascii_uppercase()),
            "{written:?}"
        );
        let _ = under_base(&host, &base);
    }
    if let Ok(pattern) = text.parse::<HostPattern>() {
        let written = pattern.to_string();
        assert_eq!(
            written.parse::<HostPattern>().as_ref(),
            Ok(&pattern),
            "{text:?}"
        );
    }
});
