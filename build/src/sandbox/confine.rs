//! What a build may ask of the kernel: the way to it is narrower than namespaces make it.
//!
//! A filter of system calls (seccomp) refuses what no build needs and what faults of kernels are reached by: namespaces of one's
//! own, mounts, keyrings, BPF, `io_uring`, sockets of rare families. Landlock says once more where may be written. Both hold for
//! this thread and all that comes after it, and nothing takes them off again.

use std::collections::BTreeMap;
use std::io;

use landlock::{
    ABI, AccessFs, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, Scope, path_beneath_rules,
};
use nix::libc;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Length, SeccompCmpOp as Compare,
    SeccompCondition as Condition, SeccompFilter, SeccompRule as Rule, TargetArch,
};

/// Calls that are not permitted, whatever is asked of them.
const FORBIDDEN: &[libc::c_long] = &[
    // Other roots, mounts and namespaces.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // Keys, which are the user's and not the namespace's.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    // Programs and events in the kernel.
    libc::SYS_bpf,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    // Files past the ways that lead to them.
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // The machine itself.
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    // Memory of other machines' nodes.
    libc::SYS_mbind,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
];

/// More of the same, of this processor alone.
#[cfg(target_arch = "x86_64")]
const FORBIDDEN_HERE: &[libc::c_long] = &[
    libc::SYS_ioperm,
    libc::SYS_iopl,
    libc::SYS_modify_ldt,
    libc::SYS_uselib,
    libc::SYS_ustat,
];
#[cfg(not(target_arch = "x86_64"))]
const FORBIDDEN_HERE: &[libc::c_long] = &[];

/// Calls that a kernel may not have: whoever hears so does it in the older way. `clone3` keeps its flags where no filter sees them.
const UNKNOWN: &[libc::c_long] = &[
    libc::SYS_clone3,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
];

/// Flags of `clone` that make a namespace.
const NAMESPACES: [libc::c_int; 7] = [
    libc::CLONE_NEWCGROUP,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWUTS,
];

/// Families of sockets that programs have a use for. Netlink lists the network's devices.
const FAMILIES: [libc::c_int; 4] = [
    libc::AF_UNIX,
    libc::AF_INET,
    libc::AF_INET6,
    libc::AF_NETLINK,
];

/// Writes into the terminal's input, as if somebody had typed it.
const TERMINAL_INPUT: [libc::c_ulong; 2] = [libc::TIOCSTI, libc::TIOCLINUX];

/// Where every build may write besides its own: the sandbox made them, and they end with it.
const OWN: [&str; 3] = ["/dev", "/proc", "/tmp"];

/// Confines this thread and all that comes after it. It may write below `writable`, and below what every sandbox has.
///
/// A kernel without Landlock does without: what is mounted says the same. One without filters is an error.
pub(super) fn confine(writable: &[String]) -> io::Result<()> {
    limit_files(writable).map_err(io::Error::other)?;
    for program in programs().map_err(io::Error::other)? {
        seccompiler::apply_filter(&program).map_err(io::Error::other)?;
    }
    Ok(())
}

fn limit_files(writable: &[String]) -> Result<(), landlock::RulesetError> {
    let all = AccessFs::from_write(ABI::V6);
    // Nobody needs a device of their own; an overlay takes some for files that were removed.
    let granted = all & !(AccessFs::MakeChar | AccessFs::MakeBlock);
    let folders = OWN.into_iter().chain(writable.iter().map(String::as_str));
    Ruleset::default()
        .handle_access(all)?
        .scope(Scope::AbstractUnixSocket | Scope::Signal)?
        .create()?
        .add_rules(path_beneath_rules(folders, granted))?
        .restrict_self()?;
    Ok(())
}

/// Each is asked about every call; the strictest answer counts.
fn programs() -> Result<Vec<BpfProgram>, seccompiler::BackendError> {
    let mut programs = vec![
        program(forbidden()?, libc::EPERM)?,
        program(always(UNKNOWN).collect(), libc::ENOSYS)?,
    ];
    programs.extend(other_numbers());
    Ok(programs)
}

type Rules = BTreeMap<i64, Vec<Rule>>;

fn program(rules: Rules, refusal: libc::c_int) -> Result<BpfProgram, seccompiler::BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let refusal = SeccompAction::Errno(refusal.unsigned_abs());
    SeccompFilter::new(rules, SeccompAction::Allow, refusal, arch)?.try_into()
}

/// Rules without a condition.
fn always(calls: &[libc::c_long]) -> impl Iterator<Item = (i64, Vec<Rule>)> + '_ {
    calls.iter().map(|call| (*call, Vec::new()))
}

fn forbidden() -> Result<Rules, seccompiler::BackendError> {
    let mut rules: Rules = always(FORBIDDEN).chain(always(FORBIDDEN_HERE)).collect();
    let flag = |flag: libc::c_int| {
        let flag = u64::from(flag.unsigned_abs());
        let is_set = Condition::new(0, Length::Qword, Compare::MaskedEq(flag), flag)?;
        Rule::new(vec![is_set])
    };
    let other = |family: libc::c_int| {
        Condition::new(
            0,
            Length::Dword,
            Compare::Ne,
            u64::from(family.unsigned_abs()),
        )
    };
    let input = |request: libc::c_ulong| {
        let is_it = Condition::new(1, Length::Dword, Compare::Eq, request)?;
        Rule::new(vec![is_it])
    };
    let namespaces: Result<_, _> = NAMESPACES.into_iter().map(flag).collect();
    let families: Result<_, _> = FAMILIES.into_iter().map(other).collect();
    let inputs: Result<_, _> = TERMINAL_INPUT.into_iter().map(input).collect();
    rules.insert(libc::SYS_clone, namespaces?);
    rules.insert(libc::SYS_socket, vec![Rule::new(families?)?]);
    rules.insert(libc::SYS_ioctl, inputs?);
    Ok(rules)
}

/// Refuses the second set of numbers that some kernels know calls by (x32): a filter by number does not see those.
#[cfg(target_arch = "x86_64")]
fn other_numbers() -> Option<BpfProgram> {
    use seccompiler::sock_filter;
    /// From here on they begin.
    const X32: u32 = 0x4000_0000;
    /// The number is the first word of what a filter is given.
    const NUMBER: u32 = 0;
    let refused = libc::SECCOMP_RET_ERRNO | libc::ENOSYS.unsigned_abs();
    let instruction = |code: u32, jt: u8, k: u32| sock_filter {
        // All are below 256.
        code: u16::try_from(code).unwrap_or_default(),
        jt,
        jf: 0,
        k,
    };
    Some(vec![
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, NUMBER),
        instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, X32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
        instruction(libc::BPF_RET | libc::BPF_K, 0, refused),
    ])
}

#[cfg(not(target_arch = "x86_64"))]
const fn other_numbers() -> Option<BpfProgram> {
    None
}
