//! Who may do what.

use helix_routing::api::{CreatedToken, NewToken, Role};
use helix_tests::api::{Api, problem};
use helix_tests::command::Helix;
use helix_tests::fleet::Fleet;
use helix_tests::folder::Folder;

fn token(fleet: &Fleet, name: &str, role: Role) -> CreatedToken {
    fleet.api().create(
        "/v1/tokens",
        &NewToken {
            name: name.to_owned(),
            role,
        },
    )
}

fn with(fleet: &Fleet, token: &str) -> Helix {
    Helix {
        api: fleet.info.api.clone(),
        token: token.to_owned(),
    }
}

#[test]
fn a_wrong_token_is_refused_and_never_shown() {
    let fleet = Fleet::shared();
    let folder = Folder::page("refused");
    let secret = "not-a-token-of-this-fleet";
    let ended = with(&fleet, secret)
        .run([
            "deploy",
            folder.path().to_str().unwrap(),
            "--project",
            "refused",
        ])
        .with(1);
    ended.says(&["token"]);
    assert!(
        !ended.stderr.contains(secret) && !ended.stdout.contains(secret),
        "the token was printed"
    );
    let api = Api {
        url: fleet.info.api.clone(),
        token: secret.to_owned(),
    };
    for target in ["/v1/status", "/v1/tokens", "/v1/projects", "/v2/"] {
        assert_eq!(
            api.send("GET", target, &[], &[]).unwrap().status,
            401,
            "{target}"
        );
    }
    assert!(
        fleet.api().site("refused/production").is_none(),
        "a refused deployment left a project"
    );
}

#[test]
fn each_role_may_do_its_part_and_no_more() {
    let fleet = Fleet::shared();
    let read = token(&fleet, "reads", Role::Read);
    let deploy = token(&fleet, "deploys", Role::Deploy);
    let folder = Folder::page("roles");
    let arguments = [
        "deploy",
        folder.path().to_str().unwrap(),
        "--project",
        "roles",
    ];

    let _ = with(&fleet, &read.token).run(["status"]).with(0);
    with(&fleet, &read.token)
        .run(arguments)
        .with(1)
        .says(&["deploy"]);
    let _ = with(&fleet, &deploy.token).run(arguments).with(0);
    let _ = with(&fleet, &deploy.token).run(["token", "list"]).with(1);
    let _ = with(&fleet, &deploy.token)
        .run(["projects", "delete", "roles", "--yes"])
        .with(1);

    let api = Api {
        url: fleet.info.api.clone(),
        token: deploy.token,
    };
    let refused = api.post(
        "/v1/tokens",
        &NewToken {
            name: "more".to_owned(),
            role: Role::Operate,
        },
    );
    assert_eq!(refused.status, 403);
    let _ = problem(&refused);
}

#[test]
fn a_revoked_token_opens_nothing() {
    let fleet = Fleet::shared();
    let created = token(&fleet, "short-lived", Role::Read);
    let _ = with(&fleet, &created.token).run(["status"]).with(0);
    fleet
        .helix()
        .run(["token", "list"])
        .with(0)
        .says(&["short-lived"]);
    let _ = fleet
        .helix()
        .run(["token", "revoke", &created.view.id])
        .with(0);
    let _ = with(&fleet, &created.token).run(["status"]).with(1);
    let listed = fleet.helix().run(["token", "list"]).with(0);
    assert!(
        !listed.stdout.contains(&created.token),
        "a secret was listed"
    );
}

#[test]
fn names_that_are_not_legal_are_refused_with_the_rule() {
    let fleet = Fleet::shared();
    let folder = Folder::page("names");
    let path = folder.path().to_str().unwrap();
    let helix = fleet.helix();
    for project in [
        "Shop", "-shop", "2shop", "shop.x", "preview", "pr-1", "../x", "",
    ] {
        let _ = helix.run(["deploy", path, "--project", project]).with(1);
    }
    helix
        .run(["deploy", path, "--project", "Shop"])
        .with(1)
        .says(&["project name", "Shop"]);
    for environment in ["staging", "preview", "preview/0", "preview/x"] {
        helix
            .run(["deploy", path, "--project", "names", "--env", environment])
            .with(1)
            .says(&["environment"]);
    }
    let _ = helix.run(["deploy", path, "--project", "names"]).with(0);
    for host in [
        "a_b.example",
        "-a.example",
        "*.com",
        "a..b",
        "*.names.helix.localhost",
    ] {
        let _ = helix
            .run(["domains", "add", host, "--project", "names"])
            .with(1);
    }
    let _ = helix.run(["deploy", "--no-such-flag"]).with(1);
}
