//! Why a PostgreSQL is not spoken to over TLS as its URL asks, said so that somebody can do something about it.
//!
//! Without this a certificate that nobody trusts would look like a server that is away: origin would wait for ever.

use std::path::PathBuf;

use super::{Place, StoreError};

/// What a URL of PostgreSQL calls the files of TLS.
const FILES: [&str; 7] = [
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
];

/// Checks that the files of TLS that the place names can be read.
pub(super) fn check_files(place: &Place) -> Result<(), StoreError> {
    for path in files(place) {
        std::fs::File::open(&path).map_err(|source| StoreError::TlsFile {
            path,
            place: Box::new(place.clone()),
            source,
        })?;
    }
    Ok(())
}

fn files(place: &Place) -> Vec<PathBuf> {
    let Place::Postgres(url) = place else {
        return Vec::new();
    };
    let pairs = url.query_pairs();
    pairs
        .filter(|(key, _)| FILES.contains(&&**key))
        .map(|(_, value)| PathBuf::from(&*value))
        .collect()
}

/// Why a place could not be opened.
pub(super) fn failed(place: &Place, source: sqlx::Error) -> StoreError {
    let place = Box::new(place.clone());
    if is_tls(&source) {
        StoreError::Untrusted { place, source }
    } else {
        StoreError::Open { place, source }
    }
}

/// What TLS says no to comes as data that cannot be; a connection that breaks, as something else.
fn is_tls(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Tls(_) => true,
        sqlx::Error::Io(error) => error.kind() == std::io::ErrorKind::InvalidData,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use helix_service::error::chain;
    use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};

    use super::*;
    use crate::store::testing::postgres::{PASSWORD, Postgres};
    use crate::store::{Store, testing};

    /// An authority, whose certificate is in a file.
    fn authority(folder: &Path, name: &str) -> (Issuer<'static, KeyPair>, String) {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let file = folder.join(format!("{name}.pem"));
        fs::write(&file, params.self_signed(&key).unwrap().pem()).unwrap();
        let shown = file.to_str().unwrap().to_owned();
        (Issuer::new(params, key), shown)
    }

    async fn refused(place: &str) -> StoreError {
        let place: Place = place.parse().unwrap();
        let error = Store::lead(&place).await.unwrap_err();
        let said = format!("{} {error:?}", chain(&error));
        assert!(!said.contains(PASSWORD), "{said}");
        assert!(!error.is_passing(), "nothing would change: {said}");
        error
    }

    #[tokio::test]
    async fn a_server_is_trusted_by_its_authority_and_its_name() {
        let Some(postgres) = Postgres::start() else {
            return;
        };
        let folder = tempfile::tempdir().unwrap();
        let (issuer, ours) = authority(folder.path(), "ours");
        let (_, other) = authority(folder.path(), "other");
        let key = KeyPair::generate().unwrap();
        let names = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
        let certificate = names.signed_by(&key, &issuer).unwrap();
        postgres.secure(&certificate.pem(), &key.serialize_pem());
        let url = postgres.database();

        let full = format!("{url}?sslmode=verify-full&sslrootcert={ours}");
        let store = Store::lead(&full.parse::<Place>().unwrap()).await.unwrap();
        let over_tls = "SELECT CAST(ssl AS TEXT) FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        let over_tls: String = sqlx::query_scalar(over_tls)
            .fetch_one(store.reader())
            .await
            .unwrap();
        assert_eq!(over_tls, "true");
        store.close().await;

        for (asks, why) in [
            (
                format!("sslmode=verify-full&sslrootcert={other}"),
                "UnknownIssuer",
            ),
            (
                format!("sslmode=verify-ca&sslrootcert={other}"),
                "UnknownIssuer",
            ),
            ("sslmode=verify-full".to_owned(), "UnknownIssuer"),
        ] {
            let error = refused(&format!("{url}?{asks}")).await;
            assert!(matches!(error, StoreError::Untrusted { .. }), "{error:?}");
            let said = chain(&error);
            assert!(
                said.contains("sslrootcert=FILE") && said.contains(why),
                "{asks}: {said}"
            );
        }
        // The certificate is for another name.
        let elsewhere = url.replace("@127.0.0.1:", "@localhost:");
        let error = refused(&format!(
            "{elsewhere}?sslmode=verify-full&sslrootcert={ours}"
        ))
        .await;
        assert!(
            chain(&error).contains("not valid for name"),
            "{}",
            chain(&error)
        );
        let authority_alone = format!("{elsewhere}?sslmode=verify-ca&sslrootcert={ours}");
        let place: Place = authority_alone.parse().unwrap();
        Store::lead(&place).await.unwrap().close().await;

        let missing = folder.path().join("missing.pem");
        let asks = format!("sslmode=verify-full&sslrootcert={}", missing.display());
        let error = refused(&format!("{url}?{asks}")).await;
        assert!(matches!(error, StoreError::TlsFile { .. }), "{error:?}");
        assert!(chain(&error).contains("missing.pem"), "{}", chain(&error));
    }

    #[tokio::test]
    async fn a_server_without_tls_is_refused_where_tls_is_asked_for() {
        let Some(postgres) = testing::server() else {
            return;
        };
        let error = refused(&format!("{}?sslmode=require", postgres.database())).await;
        assert!(
            chain(&error).contains("does not support TLS"),
            "{}",
            chain(&error)
        );
    }
}
