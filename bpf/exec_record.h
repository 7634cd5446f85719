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

enum exec_flags {
	EXEC_TRUNCATED = 1,  /* there are more arguments, or longer ones */
	EXEC_INCOMPLETE = 2, /* an argument's page was not resident: it reads as empty */
	EXEC_UNABLE = 4,     /* no CAP_SYS_ADMIN: it can't start a container, whatever it says */
};

struct exec_record {
	__u64 argv;	    /* user address of the argv array */
	__u32 tid;	    /* thread that called execve, host pid namespace */
	__u32 tgid;	    /* its process */
	__u32 ppid;	    /* its parent process */
	__u32 euid;	    /* effective uid, initial user namespace */
	__u32 userns_level; /* 0: initial user namespace */
	__u32 flags;	    /* enum exec_flags */
	__u32 argc;	    /* arguments held in args */
	__u32 args_size;    /* bytes used in args */
	char comm[EXEC_COMM_SIZE];
	/*
	 * argc strings, each NUL-terminated. The room past EXEC_ARGS_SIZE lets the
	 * last argument be read with a constant bound, which every verifier accepts.
	 */
	char args[EXEC_ARGS_SIZE + EXEC_ARG_SIZE];
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

#endif
