// SPDX-License-Identifier: Apache-2.0
/*
 * The system calls of the door and of the yard: a seccomp filter. They are root, and read what a worker sends, who
 * may be broken or somebody else's. Whoever gets to execute code in them still has their groups: to hold, to let go,
 * and to read what is marked while others use it. But not to open or write files, to start, trace or kill anything.
 *
 * What is refused fails (ENOSYS: a libc knows what to do then), and kills nobody: a door that is killed lets every
 * container through.
 *
 * An upgrade (upgrade.c) executes the next version under this filter, and the kernel takes none away. So that
 * version has what is allowed here, less what it refuses itself. One that can't do without another call needs
 * another LAYOUT: then the guard ends, the kernel lets all go, and whoever started it starts it anew.
 */
#define _GNU_SOURCE
#include "sandbox.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "say.h"

#if defined(__x86_64__)
#define NATIVE AUDIT_ARCH_X86_64 /* x32's, too: its calls have other numbers */
#elif defined(__aarch64__) && defined(__AARCH64EL__)
#define NATIVE AUDIT_ARCH_AARCH64
#else
#define NATIVE 0
#endif

#define PLACED "STARTGATE_SANDBOX" /* the filter that this process has, from before its execve */
#define REFUSE (SECCOMP_RET_ERRNO | ENOSYS)
#define NUMBER ((uint32_t)offsetof(struct seccomp_data, nr))
#define LOAD(from) BPF_STMT(BPF_LD | BPF_W | BPF_ABS, from)
/* Its low half: all that the kernel looks at here, as these arguments are of 32 bits, or flags. */
#define LOAD_ARGUMENT(index) LOAD((uint32_t)(offsetof(struct seccomp_data, args) + 8 * (index)))
#define IF(value, then, otherwise) BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, then, otherwise)
#define RETURN(action) BPF_STMT(BPF_RET | BPF_K, action)

enum { DOOR = 1, YARD = 2, BOTH = DOOR | YARD, SELF = 4 };

struct rule {
	uint32_t who;
	uint32_t call;
	uint32_t argument, mask, value; /* the argument has this value below the mask; SELF: our pid */
};

#define CALL(who, name) {who, __NR_##name, 0, 0, 0}
#define IS(who, name, argument, value) {who, __NR_##name, argument, ~0u, value}
#define HAS_NOT(who, name, argument, bits) {who, __NR_##name, argument, bits, 0}
#define NAMESPACES (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER | CLONE_NEWPID | CLONE_NEWNET)

/* A filter is read from its start (Linux 5.11 knows which calls need no reading): what tasks wait for comes first. */
static const struct rule RULES[] = {
	/* Events, answers, messages. */
	CALL(BOTH, read), CALL(BOTH, write),
#ifdef __NR_epoll_wait
	CALL(BOTH, epoll_wait),
#endif
	CALL(BOTH, epoll_pwait),
	CALL(BOTH, clock_gettime), /* where the vDSO has no clock to read */
	CALL(BOTH, futex), CALL(BOTH, recvmsg), CALL(BOTH, sendmsg), CALL(BOTH, close),
	IS(DOOR, bpf, 0, BPF_MAP_LOOKUP_ELEM), IS(DOOR, bpf, 0, BPF_MAP_LOOKUP_AND_DELETE_ELEM),
	IS(BOTH, bpf, 0, BPF_PROG_TEST_RUN), /* of `pending`; without its fd there is nothing to run */
#ifdef __NR_readlink
	CALL(BOTH, readlink), /* the path of a held file; a libc's start asks who it is */
#endif
	CALL(BOTH, readlinkat),
	CALL(YARD, timerfd_settime), CALL(BOTH, epoll_ctl), CALL(BOTH, sendto),
	HAS_NOT(BOTH, fanotify_mark, 1, FAN_MARK_MOUNT | FAN_MARK_FILESYSTEM), /* files, one by one */
#ifdef __NR_poll
	CALL(YARD, poll),
#endif
	CALL(YARD, ppoll),
	/* After SIGSTOP and SIGCONT, and as a signal of any kind ends. */
	CALL(BOTH, restart_syscall), CALL(BOTH, rt_sigreturn),
	/* Memory: never both written and executed, nor executed later. */
	CALL(BOTH, brk), CALL(BOTH, munmap), CALL(BOTH, madvise), CALL(BOTH, mlockall),
	HAS_NOT(BOTH, mmap, 2, PROT_EXEC), HAS_NOT(BOTH, mprotect, 2, PROT_EXEC),
	/* The yard's threads: no processes. clone3's flags can't be looked at; a libc takes clone then. */
	{YARD, __NR_clone, 0, CLONE_THREAD | NAMESPACES, CLONE_THREAD}, CALL(YARD, exit),
	CALL(BOTH, rt_sigprocmask), CALL(BOTH, set_robust_list),
#ifdef __NR_rseq
	CALL(BOTH, rseq),
#endif
	/* An upgrade: the file whose fd the guard sent, with what it inherits. Then a static libc's start, and ours. */
	IS(BOTH, execveat, 4, AT_EMPTY_PATH), IS(BOTH, fcntl, 1, F_SETFD),
#ifdef __NR_arch_prctl
	CALL(BOTH, arch_prctl),
#endif
	CALL(BOTH, set_tid_address), IS(BOTH, prlimit64, 0, 0), CALL(BOTH, getrandom), CALL(BOTH, uname),
	CALL(BOTH, epoll_create1), CALL(YARD, timerfd_create),
	IS(BOTH, prctl, 0, PR_SET_NAME), IS(BOTH, prctl, 0, PR_SET_NO_NEW_PRIVS),
	IS(BOTH, seccomp, 0, SECCOMP_SET_MODE_FILTER),
	/* The end, abort(3) and its last words included. */
	CALL(BOTH, exit_group), CALL(BOTH, writev), CALL(BOTH, rt_sigaction), CALL(BOTH, getpid), CALL(BOTH, gettid),
	IS(BOTH | SELF, tgkill, 0, 0),
};

#define RULES_COUNT (sizeof(RULES) / sizeof(RULES[0]))
#define RULE_SIZE 6

static unsigned short add_rule(struct sock_filter *to, const struct rule *rule)
{
	const uint32_t value = rule->who & SELF ? (uint32_t)getpid() : rule->value;
	const struct sock_filter any[] = {IF(rule->call, 0, 1), RETURN(SECCOMP_RET_ALLOW)};
	const struct sock_filter looked_at[RULE_SIZE] = {
		IF(rule->call, 0, RULE_SIZE - 1), LOAD_ARGUMENT(rule->argument), BPF_STMT(BPF_ALU | BPF_AND | BPF_K, rule->mask),
		IF(value, 0, 1), RETURN(SECCOMP_RET_ALLOW), LOAD(NUMBER),
	};

	memcpy(to, rule->mask ? looked_at : any, rule->mask ? sizeof(looked_at) : sizeof(any));
	return rule->mask ? RULE_SIZE : 2;
}

static unsigned short build(struct sock_filter *filter, uint32_t who)
{
	const struct sock_filter head[] = {LOAD((uint32_t)offsetof(struct seccomp_data, arch)), IF(NATIVE, 1, 0), RETURN(REFUSE),
					   LOAD(NUMBER)};
	const struct sock_filter tail = RETURN(REFUSE);
	unsigned short size = sizeof(head) / sizeof(head[0]);

	memcpy(filter, head, sizeof(head));
	for (size_t i = 0; i < RULES_COUNT; i++)
		if (RULES[i].who & who)
			size += add_rule(filter + size, &RULES[i]);
	filter[size++] = tail;
	return size;
}

/* FNV-1a. Our pid is in the filter: no other process has this one. */
static void name_of(const struct sock_filter *filter, size_t size, char name[17])
{
	uint64_t hash = 0xcbf29ce484222325;

	for (size_t i = 0; i < size * sizeof(*filter); i++)
		hash = (hash ^ ((const uint8_t *)filter)[i]) * 0x100000001b3;
	snprintf(name, 17, "%016" PRIx64, hash);
}

/* SPEC_ALLOW: no foreign code runs here, and before Linux 5.16 a filter would slow down each of our own branches. */
static int place(struct sock_fprog *program)
{
	if (!NATIVE) {
		errno = ENOSYS;
		return -1;
	}
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -1;
	return (int)syscall(__NR_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_SPEC_ALLOW, program);
}

void sandbox(const char *name, enum group_kind kind)
{
	struct sock_filter filter[5 + RULES_COUNT * RULE_SIZE];
	struct sock_fprog program = {.filter = filter};
	const char *placed = getenv(PLACED);
	char same[17];

	program.len = build(filter, kind == COMMANDS ? DOOR : YARD);
	name_of(filter, program.len, same);
	if (placed && strcmp(placed, same) == 0)
		return; /* an upgrade that changes nothing. Filters add up, and the kernel takes 32,768 instructions in all */
	if (place(&program))
		say(name, "no filter of system calls: %s", strerror(errno));
	else
		setenv(PLACED, same, 1);
}
