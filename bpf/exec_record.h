/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * The record of one execve, shared by the BPF programs and user space.
 *
 * This is its only definition: src/startgate/records/layout.py mirrors it, and
 * tests/unit/test_layout.py fails when the two drift apart.
 */
#ifndef STARTGATE_EXEC_RECORD_H
#define STARTGATE_EXEC_RECORD_H

#define EXEC_ARGS_MAX 128   /* arguments in a record */
/*
 * A record is copied whole at each look-up: these hold what engines write (Docker: 0.6 KiB), and
 * not all that an execve takes. Longer command lines are read from the held task's memory.
 */
#define EXEC_ARGS_SIZE 2048 /* bytes of arguments after which a record is full; a power of two */
#define EXEC_ARG_SIZE 1024  /* bytes of one argument, NUL included */
#define EXEC_COMM_SIZE 16   /* TASK_COMM_LEN */
#define EXEC_NAME_SIZE 32   /* bytes of a file's name that are compared, NUL included */
#define EXEC_PATH_SIZE 256  /* bytes of a path that are looked at, NUL included; a power of two */
#define EXEC_CGROUP_SIZE 2048 /* bytes of a cgroup's path; a power of two */
#define EXEC_CGROUP_NAME_SIZE 256 /* NAME_MAX and the NUL */
#define EXEC_PID_LEVELS 8 /* pid namespaces of a process that are told, from its own upwards */
#define EXEC_LOOKS 64	    /* threads that look at processes at the same time */

/* The namespaces of a process, by their place in `namespaces`; each is its inode number, 0: none. */
enum exec_namespaces {
	EXEC_NS_MNT,
	EXEC_NS_NET,
	EXEC_NS_PID, /* the one it is in: /proc/PID/ns/pid */
	EXEC_NS_IPC,
	EXEC_NS_UTS,
	EXEC_NS_USER,
	EXEC_NS_CGROUP,
	EXEC_NS_TIME,
	EXEC_NAMESPACES,
};

enum exec_flags {
	EXEC_TRUNCATED = 1,  /* there are more arguments, or longer ones */
	EXEC_INCOMPLETE = 2, /* an argument's page was not resident: it reads as empty */
	EXEC_UNABLE = 4,     /* no CAP_SYS_ADMIN: it can't start a container, whatever it says */
	EXEC_WATCHED = 8,    /* of a sighting: the file is marked by now */
};

struct exec_record {
	__u64 argv;	    /* user address of the argv array; 0: it is not there any more */
	__u64 start_time;   /* of the process: ns of CLOCK_BOOTTIME; /proc/PID/stat has it in ticks */
	__u32 tid;	    /* thread that called execve, host pid namespace */
	__u32 tgid;	    /* its process */
	__u32 ppid;	    /* its parent process */
	__u32 euid;	    /* effective uid, initial user namespace */
	__u32 userns_level; /* 0: initial user namespace */
	__u32 flags;	    /* enum exec_flags */
	__u32 argc;	    /* arguments held in args */
	__u32 args_size;    /* bytes used in args */
	__u32 namespaces[EXEC_NAMESPACES];
	__u32 loginuid;	    /* who logged in (pam_loginuid(8)); (__u32)-1: nobody, or not known */
	__u32 session;	    /* the audit session; (__u32)-1: none, or not known */
	char comm[EXEC_COMM_SIZE];
	char parent_comm[EXEC_COMM_SIZE]; /* of the parent process */
	/*
	 * argc strings, each NUL-terminated. The room past EXEC_ARGS_SIZE lets the
	 * last argument be read with a constant bound, which every verifier accepts.
	 */
	char args[EXEC_ARGS_SIZE + EXEC_ARG_SIZE];
};

/*
 * An execve that looks like a runtime's, of a file that our fanotify group has no mark on: it was
 * not held. Told when it has succeeded, before the first instruction.
 */
struct exec_sighting {
	struct exec_record exec;
	__u64 inode;		   /* the file's number */
	char path[EXEC_PATH_SIZE]; /* as the caller wrote it; may be cut */
};

/* What the kernel knows of a process that user space asked about. */
struct process_facts {
	__u64 start_time; /* ns of CLOCK_BOOTTIME */
	__u64 cgroup_id;  /* of the unified hierarchy (v2): its directory's inode number */
	__u32 tgid;	  /* host pid; 0: it is gone */
	__u32 cgroup_size; /* bytes used in cgroup */
	__u32 namespaces[EXEC_NAMESPACES];
	/* The names of its path, from the leaf up, each NUL-terminated: "leaf", "parent". */
	char cgroup[EXEC_CGROUP_SIZE + EXEC_CGROUP_NAME_SIZE];
};

/* The end of a process that the OOM killer chose. */
struct oom_kill {
	/* Its cgroup: of the unified hierarchy; where that is the root, of the memory controller's. */
	struct process_facts victim;
	__u32 pid_namespaces[EXEC_PID_LEVELS]; /* its own first; 0: there are no more */
	char comm[EXEC_COMM_SIZE];
};

/* What is counted: the places of `counts`. */
enum exec_counts {
	COUNT_START,	    /* executions of watched files by root: create, run, restore */
	COUNT_EXEC,	    /* of exec */
	COUNT_START_UNSEEN, /* of these, those that no gate was asked about */
	COUNT_EXEC_UNSEEN,
	COUNT_SINCE, /* when this began: ns of CLOCK_REALTIME, as user space says */
	COUNTS,
};

/* What is remembered of a process that user space asked for. */
struct exit_record {
	__s32 status;	  /* wait status; -1 until the exit */
	__u32 oom_victim; /* the OOM killer chose it */
};

/* The end of such a process. */
struct exec_end {
	__u32 tgid;
	__s32 status; /* wait status */
};

/*
 * How an `exec` of a runtime came out: the process that it brought into a container has ended, or the
 * runtime has, and brought none. Host pids.
 */
struct exec_outcome {
	__u64 runtime_start; /* of the runtime's process: ns of CLOCK_BOOTTIME */
	__u64 start;	     /* of the process, and its end: ns of CLOCK_BOOTTIME */
	__u64 end;
	__u32 runtime;	  /* the runtime's process */
	__u32 init;	  /* of the container, as user space said; 0: not known */
	__u32 tgid;	  /* the process; 0: there was none */
	__s32 status;	  /* wait status of the process, or of the runtime */
	__u32 oom_victim; /* the OOM killer chose the process */
	__u32 reserved;
};

/* Such an exec, until its process runs. User space inserts it, by the runtime's process. */
struct exec_join {
	__u64 start_time; /* of the runtime's process; 0: not known yet */
	__u32 mnt;	  /* the container's mount namespace: inode number; 0: not to be told from its own */
	__u32 init;
	__s32 members; /* it, and its descendants that have not ended */
	__u32 settled; /* its process runs, or was lost sight of */
	__s32 status;  /* of the runtime; -1 until its end */
	__u32 reserved;
};

/* A process of those: the runtime's, or a descendant of it. */
struct exec_member {
	__u64 start_time; /* 0: not known yet */
	__u32 runtime;
	__u32 reserved;
};

#endif
