//! Certificates of the fleet's authority: NATS asks edges for theirs, and edges renew them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use async_nats::ConnectOptions;
use helix_tests::wait;
use rcgen::{CertificateParams, DistinguishedName, DnType, Issuer, KeyPair, SanType};

use super::world::{CATCH_UP, START, World};
use crate::own_fleet;

/// A certificate of the authority in `folder`, as an operator would make one, and its key: `<name>.pem`, `<name>.key`.
fn certify(folder: &Path, name: &str) {
    let authority = KeyPair::from_pem(&fs::read_to_string(folder.join("authority.key")).unwrap());
    let mut issuer = CertificateParams::default();
    issuer.distinguished_name = DistinguishedName::new();
    issuer
        .distinguished_name
        .push(DnType::CommonName, "HelixStack fleet");
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params
        .subject_alt_names
        .push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate().unwrap();
    let made = params.signed_by(&key, &Issuer::new(issuer, authority.unwrap()));
    fs::write(folder.join(format!("{name}.pem")), made.unwrap().pem()).unwrap();
    fs::write(folder.join(format!("{name}.key")), key.serialize_pem()).unwrap();
}

/// Whether NATS lets in who has these credentials, and shows this certificate if any.
fn lets_in(url: &str, credentials: &str, ca: &Path, own: Option<(PathBuf, PathBuf)>) -> bool {
    // An error means that there is one already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let options = ConnectOptions::with_credentials(credentials).unwrap();
        let mut options = options.add_root_certificates(ca.to_owned());
        if let Some((certificate, key)) = own {
            options = options.add_client_certificate(certificate, key);
        }
        options.connect(url).await.is_ok()
    })
}

/// Lets NATS speak TLS alone, and with those alone who have a certificate of the authority.
fn require_certificates(world: &mut World) {
    world.stop_origin();
    world.kill_server(0);
    let keys = world.folder.path().join("nats");
    for name in ["nats-1", "origin"] {
        certify(&keys, name);
    }
    let path = |name: &str| keys.join(name).to_string_lossy().into_owned();
    let (ca, config) = (path("authority.pem"), world.servers[0].config.clone());
    let tls = format!(
        "\ntls {{ cert_file: \"{}\", key_file: \"{}\", ca_file: \"{ca}\", verify: true, timeout: 5 }}\n",
        path("nats-1.pem"),
        path("nats-1.key"),
    );
    fs::write(&config, fs::read_to_string(&config).unwrap() + &tls).unwrap();
    let origin = world.folder.path().join("origin.toml");
    let text = fs::read_to_string(&origin).unwrap();
    let text = text
        .replace("nats://", "tls://")
        .replace(
            "[nats]\n",
            &format!(
                "[nats]\nca_file = \"{ca}\"\ncertificate_file = \"{}\"\nkey_file = \"{}\"\n",
                path("origin.pem"),
                path("origin.key"),
            ),
        )
        .replace(
            "[admission]\n",
            &format!("[admission]\nnats_ca = \"{ca}\"\n"),
        );
    fs::write(&origin, text).unwrap();
    world.start_server(0);
    world.start_origin();
}

#[test]
fn nats_may_ask_edges_for_their_certificates_which_they_renew_in_time() {
    let _turn = own_fleet();
    let mut world = World::start(1, None);
    require_certificates(&mut world);
    world.join("fra-1", "fra");
    let _ = world.deploy("over TLS").with(0);
    let (status, ..) = world.edge("fra-1").ask("shop.helix.localhost").unwrap();
    assert_eq!(status, 200);
    let credentials = fs::read_to_string(world.identity("fra-1", "nats.creds")).unwrap();
    let url = world.nats_url(0).replace("nats://", "tls://");
    let ca = world.folder.path().join("nats/authority.pem");
    let certificate = world.identity("fra-1", "certificate.pem");
    let own = (
        certificate.clone(),
        world.identity("fra-1", "certificate.key"),
    );
    assert!(lets_in(&url, &credentials, &ca, Some(own)));
    assert!(
        !lets_in(&url, &credentials, &ca, None),
        "credentials without a certificate are not enough"
    );

    // One that is broken, or will end soon, is renewed when the edge starts; the link comes with it.
    let before = world.listed("fra-1").unwrap()["certificate_until"]
        .as_u64()
        .unwrap();
    let (http, admin) = world.stop_edge("fra-1");
    fs::write(&certificate, "what is left of it").unwrap();
    world.start_edge("fra-1", http, admin);
    wait::until_true("fra-1 follows with its next certificate", START, || {
        world.listed("fra-1").is_some_and(|edge| {
            edge["certificate_until"].as_u64().unwrap() > before && edge["live"] == true
        })
    });
    let renewed = fs::read_to_string(&certificate).unwrap();
    assert!(renewed.contains("BEGIN CERTIFICATE"), "{renewed}");
    let audit = world.helix.run(["audit", "--json"]).with(0).stdout;
    assert!(audit.contains("edge.renew"), "{audit}");

    // Who was removed gets none.
    let _ = world
        .helix
        .run(["edge", "remove", "fra-1", "--yes", "--force"])
        .with(0);
    let (http, admin) = world.stop_edge("fra-1");
    fs::write(&certificate, "what is left of it").unwrap();
    world.start_edge("fra-1", http, admin);
    let log = world.folder.path().join("log/fra-1.log");
    wait::until_true("fra-1 is told so", CATCH_UP, || {
        fs::read_to_string(&log)
            .unwrap()
            .contains("no edge fra-1 of this fleet has joined by a token")
    });
    assert_eq!(
        fs::read_to_string(&certificate).unwrap(),
        "what is left of it"
    );
}
