//! Bundles and statements: what is read of a statement is what is read of it when it is written again, and no complaint repeats
//! more than a little of what a stranger sent.
//!
//! The input is a bundle and a statement in JSON, with a line of three dashes between them.
#![no_main]

use helix_routing::id::SiteId;
use helix_routing::provenance::bundle::Bundle;
use helix_routing::provenance::policy::judge;
use helix_routing::provenance::statement::Statement;
use libfuzzer_sys::fuzz_target;

/// Longest complaint, in bytes: a sentence of ours and a hundred characters of theirs, escaped.
const MAX_COMPLAINT_BYTES: usize = 2000;

fuzz_target!(|input: &str| {
    let (bundle, statement) = input.split_once("\n---\n").unwrap_or((input, ""));
    if let Ok(bundle) = serde_json::from_str::<Bundle>(bundle) {
        match bundle.signed_by() {
            Ok((_, signature)) => assert_eq!(bundle.dsse_envelope.signatures[0].sig, signature),
            Err(error) => assert!(error.to_string().len() <= MAX_COMPLAINT_BYTES, "{error}"),
        }
    }
    let Ok(statement) = serde_json::from_str::<Statement>(statement) else {
        return;
    };
    match statement.read() {
        Ok(provenance) => {
            let again = Statement::of(&provenance).read();
            assert_eq!(again.as_ref(), Ok(&provenance));
            let (artifact, site) = (&provenance.artifact, &provenance.site);
            assert_eq!(judge(&provenance, artifact, site, None), Ok(()));
            let other: SiteId = "other/production".parse().expect("a site");
            let is_other = other != *site;
            assert_eq!(
                judge(&provenance, artifact, &other, None).is_err(),
                is_other
            );
        }
        Err(error) => assert!(error.to_string().len() <= MAX_COMPLAINT_BYTES, "{error}"),
    }
});
