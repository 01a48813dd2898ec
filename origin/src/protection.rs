//! Who may see a project's sites: what was said, what records carry of it, and links that let somebody in.
//!
//! Invariant: SQL holds it for each project and kind of environment, and every record of such a site that is written carries it,
//! whoever writes it: there is no first record without. What was typed as a password is kept nowhere, and no view has anything
//! that lets in. Whatever is to keep somebody out who was in makes a new half of the key, which ends all passes at once.

use std::time::Duration;

use helix_routing::api::{
    EnvKind, MAX_PASSWORD_BYTES, MAX_SHARE_SECONDS, MIN_PASSWORD_CHARS, NewProtection, NewShare,
    Password, ProtectionView, ShareView,
};
use helix_routing::id::{ProjectName, RegionId, SiteId};
use helix_routing::protection::{MAX_EXEMPT, PasswordCheck, PathRule, Protection};
use helix_routing::record::SiteRecord;
use helix_routing::wire::Wire as _;
use helix_service::pass::{Key, Kind};
use helix_service::{clock, password, random};

use crate::app::App;
use crate::auth::Caller;
use crate::feed::records::{self, RecordError};
use crate::store::{self, Connection, StoreError, Tx, count, millis, number, time};
use crate::visitor_key;

/// A protection cannot be changed, or a link not made.
#[derive(Debug, thiserror::Error)]
pub enum ProtectionError {
    /// The password cannot be one.
    #[error(
        "a password has at least {MIN_PASSWORD_CHARS} characters and at most {MAX_PASSWORD_BYTES} bytes, none of which is a line break"
    )]
    Password,
    /// Both at once.
    #[error("set a password or remove it, not both")]
    Both,
    /// Too many rules.
    #[error("a protection has at most {MAX_EXEMPT} rules")]
    TooMany,
    /// It is not on.
    #[error("{0} is not protected: everybody sees it; `helix protect` changes that")]
    Open(SiteId),
    /// The link would last too long, or not at all.
    #[error("a link lasts from 1 minute to {} days", MAX_SHARE_SECONDS / 86_400)]
    Life,
    /// A record could not be written.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// The database refused.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A link that is over before it is sent is of no use.
const MIN_SHARE_SECONDS: u64 = 60;

impl From<sqlx::Error> for ProtectionError {
    fn from(source: sqlx::Error) -> Self {
        Self::Store(source.into())
    }
}

/// What was said of the sites of one kind.
#[derive(Clone)]
struct Row {
    is_on: bool,
    secret: String,
    password: Option<PasswordCheck>,
    exempt: Vec<PathRule>,
    revision: u64,
    by: String,
    changed: i64,
}

impl Row {
    /// On, with a key of its own, and nothing else.
    fn new(by: &Caller) -> Self {
        Self {
            is_on: true,
            secret: random::secret(),
            password: None,
            exempt: Vec::new(),
            revision: 1,
            by: by.name.clone(),
            changed: millis(clock::now()),
        }
    }

    /// Nobody who was let in is in any more.
    fn renew(&mut self) {
        self.secret = random::secret();
        self.revision += 1;
    }

    fn carried(self) -> Option<Protection> {
        let protection = Protection {
            secret: self.secret,
            password: self.password,
            exempt: self.exempt,
        };
        self.is_on.then_some(protection)
    }
}

/// What records of `site` carry.
///
/// # Errors
/// When the database fails, or holds what this build cannot have written.
pub async fn of_site(
    connection: &mut Connection,
    site: &SiteId,
) -> Result<Option<Protection>, StoreError> {
    let row = read(connection, &site.project, site.environment.into()).await?;
    Ok(row.and_then(Row::carried))
}

/// What is kept of the new password, if there is one. It takes a while by design: nobody is kept from writing meanwhile.
///
/// # Errors
/// When nothing can be protected so.
pub async fn kept(new: &NewProtection) -> Result<Option<PasswordCheck>, ProtectionError> {
    check(new)?;
    let Some(Password(typed)) = new.password.clone() else {
        return Ok(None);
    };
    let kept = tokio::task::spawn_blocking(move || password::keep(&typed)).await;
    Ok(Some(kept.map_err(|_| ProtectionError::Password)?))
}

/// Changes who may see a project's sites of one kind, and tells their edges. `kept` is what [`kept`] has made of it.
///
/// # Errors
/// When the database fails.
pub async fn change(
    tx: &mut Tx,
    caller: &Caller,
    project: &ProjectName,
    (new, kept): (NewProtection, Option<PasswordCheck>),
) -> Result<(), ProtectionError> {
    let held = read(tx, project, new.kind).await?;
    let is_new = held.is_none();
    let mut row = held.unwrap_or_else(|| Row::new(caller));
    let was_on = row.is_on && !is_new;
    row.is_on = new.on.unwrap_or(row.is_on);
    let ends = new.revoke
        || kept.is_some()
        || (new.no_password && row.password.is_some())
        || (row.is_on && !was_on);
    if ends && !is_new {
        row.renew();
    }
    if kept.is_some() || new.no_password {
        row.password = kept;
    }
    row.exempt = new.exempt.unwrap_or(row.exempt);
    row.by.clone_from(&caller.name);
    row.changed = millis(clock::now());
    write(tx, project, new.kind, &row).await?;
    tell(tx, project, new.kind).await
}

/// Turns the protection of a private project's previews on, unless somebody has said something else of them. True when it did.
///
/// # Errors
/// When the database fails.
pub async fn by_default(
    tx: &mut Tx,
    caller: &Caller,
    project: &ProjectName,
) -> Result<bool, ProtectionError> {
    if read(tx, project, EnvKind::Preview).await?.is_some() {
        return Ok(false);
    }
    write(tx, project, EnvKind::Preview, &Row::new(caller)).await?;
    tell(tx, project, EnvKind::Preview).await?;
    Ok(true)
}

/// What edges hold of a site that went on after a backup counts where the backup knows nothing: what was protected stays so.
///
/// # Errors
/// When the database fails.
pub(crate) async fn adopt(tx: &mut Tx, record: &SiteRecord) -> Result<(), StoreError> {
    let Some(held) = &record.protection else {
        return Ok(());
    };
    let (project, kind) = (&record.site.project, record.site.environment.into());
    let row = read(tx, project, kind).await?;
    if row.as_ref().is_some_and(|row| row.is_on) {
        return Ok(());
    }
    let revision = row.map_or(0, |row| row.revision) + 1;
    let adopted = Row {
        secret: held.secret.clone(),
        password: held.password.clone(),
        exempt: held.exempt.clone(),
        revision,
        ..Row::new(&Caller::origin())
    };
    write(tx, project, kind, &adopted).await
}

/// A link that lets somebody in.
///
/// # Errors
/// When the site is open to everybody, or the link would last too long.
pub async fn share(
    app: &App,
    project: ProjectName,
    new: &NewShare,
) -> Result<ShareView, ProtectionError> {
    if !(MIN_SHARE_SECONDS..=MAX_SHARE_SECONDS).contains(&new.ttl_seconds) {
        return Err(ProtectionError::Life);
    }
    let site = SiteId {
        project,
        environment: new.environment,
    };
    let mut reader = app.store.read().await?;
    let protection = of_site(&mut reader, &site).await?;
    drop(reader);
    let Some(protection) = protection else {
        return Err(ProtectionError::Open(site));
    };
    let shared = visitor_key::current(&app.store).await?;
    let key = Key::of_secret(&shared.secret, &protection.secret);
    let until = clock::now() + Duration::from_secs(new.ttl_seconds);
    let pass = key.write(Kind::Link, &site.to_string(), until.as_millis() / 1000);
    Ok(ShareView {
        url: format!("{}?_helix_access={pass}", app.addresses.site_url(&site)),
        site,
        pass,
        until,
    })
}

/// Who may see a project's sites of one kind.
///
/// # Errors
/// When the database fails.
pub async fn view(
    connection: &mut Connection,
    project: &ProjectName,
    kind: EnvKind,
) -> Result<ProtectionView, ProtectionError> {
    let row = read(connection, project, kind).await?;
    let carried = row.clone().and_then(Row::carried);
    let mut untold = Vec::new();
    for site in sites(connection, project, kind).await? {
        for region in records::regions_of(connection, &site).await? {
            let record = records::site(connection, &region, &site).await?;
            let record = record.filter(|record| !record.removed);
            if record.is_some_and(|record| record.protection.as_deref() != carried.as_ref()) {
                untold.push(site);
                break;
            }
        }
    }
    let unread_in = match &carried {
        Some(_) => unread_in(connection).await?,
        None => Vec::new(),
    };
    let set = row.as_ref();
    Ok(ProtectionView {
        project: project.clone(),
        kind,
        on: carried.is_some(),
        has_password: set.is_some_and(|row| row.password.is_some()),
        exempt: set.map_or_else(Vec::new, |row| row.exempt.clone()),
        revision: set.map_or(0, |row| row.revision),
        by: set.map(|row| row.by.clone()),
        changed: set.map(|row| time(row.changed)),
        untold,
        unread_in,
    })
}

fn check(new: &NewProtection) -> Result<(), ProtectionError> {
    if let Some(Password(typed)) = &new.password {
        let is_one = typed.chars().count() >= MIN_PASSWORD_CHARS
            && typed.len() <= MAX_PASSWORD_BYTES
            && !typed.contains(['\r', '\n', '\0']);
        if !is_one {
            return Err(ProtectionError::Password);
        }
        if new.no_password {
            return Err(ProtectionError::Both);
        }
    }
    if new
        .exempt
        .as_ref()
        .is_some_and(|rules| rules.len() > MAX_EXEMPT)
    {
        return Err(ProtectionError::TooMany);
    }
    Ok(())
}

/// Writes it into the records of every site of the kind, unless a rollout owns them.
async fn tell(tx: &mut Tx, project: &ProjectName, kind: EnvKind) -> Result<(), ProtectionError> {
    for site in sites(tx, project, kind).await? {
        records::tell(tx, &site).await?;
    }
    Ok(())
}

async fn sites(
    connection: &mut Connection,
    project: &ProjectName,
    kind: EnvKind,
) -> Result<Vec<SiteId>, StoreError> {
    let all: Vec<String> = sqlx::query_scalar(
        "SELECT site FROM sites WHERE project = $1 AND closed IS NULL ORDER BY site",
    )
    .bind(project.as_str())
    .fetch_all(connection)
    .await?;
    let all = all.iter().map(|site| store::id(site));
    let all: Vec<SiteId> = all.collect::<Result<_, _>>()?;
    let of_kind = |site: &SiteId| EnvKind::from(site.environment) == kind;
    Ok(all.into_iter().filter(of_kind).collect())
}

async fn unread_in(connection: &mut Connection) -> Result<Vec<RegionId>, StoreError> {
    let regions: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT region FROM edge_versions WHERE site_record < $1 ORDER BY region",
    )
    .bind(i64::from(SiteRecord::VERSION))
    .fetch_all(connection)
    .await?;
    regions.iter().map(|region| store::id(region)).collect()
}

type Stored = (i64, String, Option<String>, String, i64, String, i64);

async fn read(
    connection: &mut Connection,
    project: &ProjectName,
    kind: EnvKind,
) -> Result<Option<Row>, StoreError> {
    let row: Option<Stored> = sqlx::query_as(
        "SELECT is_on, secret, password, exempt, revision, by_whom, changed FROM protections WHERE project = $1 AND kind = $2",
    )
    .bind(project.as_str())
    .bind(kind.name())
    .fetch_optional(connection)
    .await?;
    let Some((is_on, secret, password, exempt, revision, by, changed)) = row else {
        return Ok(None);
    };
    let corrupt = |_| StoreError::Corrupt {
        what: "protections",
    };
    let password = password.map(|text| serde_json::from_str(&text));
    Ok(Some(Row {
        is_on: is_on != 0,
        secret,
        password: password.transpose().map_err(corrupt)?,
        exempt: serde_json::from_str(&exempt).map_err(corrupt)?,
        revision: count(revision, "protections.revision")?,
        by,
        changed,
    }))
}

async fn write(
    tx: &mut Tx,
    project: &ProjectName,
    kind: EnvKind,
    row: &Row,
) -> Result<(), StoreError> {
    let json = "plain data always encodes";
    sqlx::query(
        "INSERT INTO protections (project, kind, is_on, secret, password, exempt, revision, by_whom, changed) \
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) ON CONFLICT (project, kind) DO UPDATE SET is_on = excluded.is_on, \
         secret = excluded.secret, password = excluded.password, exempt = excluded.exempt, revision = excluded.revision, \
         by_whom = excluded.by_whom, changed = excluded.changed",
    )
    .bind(project.as_str())
    .bind(kind.name())
    .bind(i64::from(row.is_on))
    .bind(&row.secret)
    .bind(row.password.as_ref().map(|kept| serde_json::to_string(kept).expect(json)))
    .bind(serde_json::to_string(&row.exempt).expect(json))
    .bind(number(row.revision))
    .bind(&row.by)
    .bind(row.changed)
    .execute(&mut **tx)
    .await?;
    Ok(())
}
