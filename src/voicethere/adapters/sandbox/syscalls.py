"""Numbers of the system calls that the filter names, for the two architectures that it knows.

The numbers are the kernel's binary interface and never change. What is refused is grouped by what it
would let an agent do; how it is refused is said in `seccomp`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from types import MappingProxyType

import msgspec

# x86-64 and aarch64; None where that architecture never had the call.
_Numbers = tuple[int | None, int | None]

LAST_CLASSIFIED = 462
"""Every call up to this number was looked at; later ones do not exist for a child (ENOSYS)."""

_REFUSED: Mapping[str, _Numbers] = MappingProxyType(
    {
        # running another program
        "execve": (59, 221),
        "execveat": (322, 281),
        "uselib": (134, None),
        # another process of its own (threads go through clone)
        "fork": (57, None),
        "vfork": (58, None),
        # sockets: the network, and Unix sockets by path or name
        "socket": (41, 198),
        "connect": (42, 203),
        "accept": (43, 202),
        "accept4": (288, 242),
        "bind": (49, 200),
        "listen": (50, 201),
        # signals and handles to other processes
        "rt_sigqueueinfo": (129, 138),
        "rt_tgsigqueueinfo": (297, 240),
        "pidfd_send_signal": (424, 424),
        "pidfd_open": (434, 434),
        "pidfd_getfd": (438, 438),
        # looking into other processes of the same user, or slowing them down
        "ptrace": (101, 117),
        "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271),
        "process_madvise": (440, 440),
        "process_mrelease": (448, 448),
        "kcmp": (312, 272),
        "migrate_pages": (256, 238),
        "move_pages": (279, 239),
        "setpriority": (141, 140),
        "ioprio_set": (251, 30),
        "sched_setparam": (142, 118),
        "sched_setscheduler": (144, 119),
        "sched_setattr": (314, 274),
        "setpgid": (109, 154),
        # becoming somebody else
        "setuid": (105, 146),
        "setgid": (106, 144),
        "setreuid": (113, 145),
        "setregid": (114, 143),
        "setgroups": (116, 159),
        "setresuid": (117, 147),
        "setresgid": (119, 149),
        "setfsuid": (122, 151),
        "setfsgid": (123, 152),
        "capset": (126, 91),
        # what Landlock does not rule: modes, owners, times, attributes, handles, watching, anonymous files
        "chmod": (90, None),
        "fchmod": (91, 52),
        "fchmodat": (268, 53),
        "fchmodat2": (452, 452),
        "chown": (92, None),
        "fchown": (93, 55),
        "lchown": (94, None),
        "fchownat": (260, 54),
        "utime": (132, None),
        "utimes": (235, None),
        "futimesat": (261, None),
        "utimensat": (280, 88),
        "setxattr": (188, 5),
        "lsetxattr": (189, 6),
        "fsetxattr": (190, 7),
        "removexattr": (197, 14),
        "lremovexattr": (198, 15),
        "fremovexattr": (199, 16),
        "mknod": (133, None),
        "mknodat": (259, 33),
        "name_to_handle_at": (303, 264),
        "open_by_handle_at": (304, 265),
        "memfd_create": (319, 279),
        "memfd_secret": (447, 447),
        "inotify_init": (253, None),
        "inotify_init1": (294, 26),
        "inotify_add_watch": (254, 27),
        "inotify_rm_watch": (255, 28),
        "fanotify_init": (300, 262),
        "fanotify_mark": (301, 263),
        "sync": (162, 81),
        "syncfs": (306, 267),
        # mounts and namespaces
        "mount": (165, 40),
        "umount2": (166, 39),
        "pivot_root": (155, 41),
        "chroot": (161, 51),
        "open_tree": (428, 428),
        "move_mount": (429, 429),
        "fsopen": (430, 430),
        "fsconfig": (431, 431),
        "fsmount": (432, 432),
        "fspick": (433, 433),
        "mount_setattr": (442, 442),
        "statmount": (457, 457),
        "listmount": (458, 458),
        "unshare": (272, 97),
        "setns": (308, 268),
        # what all processes of a user share: System V and POSIX queues, keys
        "shmget": (29, 194),
        "shmat": (30, 196),
        "shmctl": (31, 195),
        "shmdt": (67, 197),
        "semget": (64, 190),
        "semop": (65, 193),
        "semctl": (66, 191),
        "semtimedop": (220, 192),
        "msgget": (68, 186),
        "msgsnd": (69, 189),
        "msgrcv": (70, 188),
        "msgctl": (71, 187),
        "mq_open": (240, 180),
        "mq_unlink": (241, 181),
        "mq_timedsend": (242, 182),
        "mq_timedreceive": (243, 183),
        "mq_notify": (244, 184),
        "mq_getsetattr": (245, 185),
        "add_key": (248, 217),
        "request_key": (249, 218),
        "keyctl": (250, 219),
        # the kernel's own machinery, and its largest surfaces of attack
        "bpf": (321, 280),
        "perf_event_open": (298, 241),
        "userfaultfd": (323, 282),
        "seccomp": (317, 277),
        "io_uring_setup": (425, 425),
        "io_uring_enter": (426, 426),
        "io_uring_register": (427, 427),
        "io_setup": (206, 0),
        "io_destroy": (207, 1),
        "io_submit": (209, 2),
        "io_cancel": (210, 3),
        "io_getevents": (208, 4),
        "io_pgetevents": (333, 292),
        "kexec_load": (246, 104),
        "kexec_file_load": (320, 294),
        "init_module": (175, 105),
        "finit_module": (313, 273),
        "delete_module": (176, 106),
        "create_module": (174, None),
        "get_kernel_syms": (177, None),
        "query_module": (178, None),
        "personality": (135, 92),
        "modify_ldt": (154, None),
        "iopl": (172, None),
        "ioperm": (173, None),
        "ustat": (136, None),
        "sysfs": (139, None),
        "_sysctl": (156, None),
        "lookup_dcookie": (212, 18),
        "vserver": (236, None),
        "nfsservctl": (180, 42),
        "vhangup": (153, 58),
        "syslog": (103, 116),
        "acct": (163, 89),
        "reboot": (169, 142),
        "swapon": (167, 224),
        "swapoff": (168, 225),
        "quotactl": (179, 60),
        "quotactl_fd": (443, 443),
        "sethostname": (170, 161),
        "setdomainname": (171, 162),
        "settimeofday": (164, 170),
        "adjtimex": (159, 171),
        "clock_settime": (227, 112),
        "clock_adjtime": (305, 266),
        "lsm_get_self_attr": (459, 459),
        "lsm_set_self_attr": (460, 460),
        "lsm_list_modules": (461, 461),
    }
)

_RULED_BY_ARGUMENT: Mapping[str, _Numbers] = MappingProxyType(
    {
        "kill": (62, 129),
        "tkill": (200, 130),
        "tgkill": (234, 131),
        "clone": (56, 220),
        "clone3": (435, 435),
        "socketpair": (53, 199),
        "sendto": (44, 206),
        "prctl": (157, 167),
        "ioctl": (16, 29),
        "fcntl": (72, 25),
        "prlimit64": (302, 261),
        "sched_setaffinity": (203, 122),
    }
)

_OWN: Mapping[str, _Numbers] = MappingProxyType(
    {
        "landlock_create_ruleset": (444, 444),
        "landlock_add_rule": (445, 445),
        "landlock_restrict_self": (446, 446),
        "seccomp": (317, 277),
        "capset": (126, 91),
        "unshare": (272, 97),
    }
)


class Architecture(msgspec.Struct, frozen=True, kw_only=True):
    """One architecture's numbers. `audit_arch` is how the kernel names it to a filter."""

    name: str
    audit_arch: int
    refused: Mapping[str, int]
    ruled_by_argument: Mapping[str, int]
    own: Mapping[str, int]


def _column(table: Mapping[str, _Numbers], index: int) -> Mapping[str, int]:
    return MappingProxyType(
        {name: number for name, numbers in table.items() if (number := numbers[index]) is not None}
    )


def _architecture(name: str, audit_arch: int, index: int) -> Architecture:
    return Architecture(
        name=name,
        audit_arch=audit_arch,
        refused=_column(_REFUSED, index),
        ruled_by_argument=_column(_RULED_BY_ARGUMENT, index),
        own=_column(_OWN, index),
    )


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "x86_64": _architecture("x86_64", 0xC000003E, 0),
        "aarch64": _architecture("aarch64", 0xC00000B7, 1),
    }
)


def this_architecture() -> Architecture | None:
    """The numbers of the machine that this process runs on; None where they are not known."""
    return ARCHITECTURES.get(os.uname().machine)
