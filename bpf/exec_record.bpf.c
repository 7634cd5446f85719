// SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause
/*
 * Records the arguments of an execve on its way into the kernel, and hands the
 * record of a held execve to user space in step with its fanotify event.
 *
 *   sys_enter_execve[at]           exec_args[tid] = record, if the file's name is a runtime's
 *   fsnotify_remove_first_event    ig_fa_pick_ctx[reader] = group    (kprobe)
 *                                  ig_fa_records <- exec_args[tid]   (kretprobe)
 *   sys_exit_execve[at], exec, exit  delete exec_args[tid]
 *
 * User space either pops ig_fa_records (source `queue`) or looks exec_args up by
 * the event's thread id (source `table`), which needs no kprobes.
 */
#include "vmlinux.h"
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include "exec_record.h"

/* Execs in flight on the whole host; more are read from /proc instead. */
#define EXECS_IN_FLIGHT 1024
#define READERS 64
#define PENDING_MAX 512
#define MARKS_MAX 32	/* of one file, of all groups */
#define WORDS_MAX 32	/* of a command line, until its command */
#define CGROUP_DEPTH 32
#define ASKED_MAX 16384
#define ASKED_FOR 3700000000000ULL /* ns: an execve is held for a shorter time (--hold-timeout) */
#define OOM_VICTIMS 1024 /* that have not ended yet */
#define EXECS_JOINING 4096 /* processes of runtimes on their way into a container */
#define EXECS_MAX 16384	   /* processes that came there */
#define MEMBERS_MAX 64	   /* of one runtime: it has three, or four */
#define SIGNAL_GROUP_EXIT 4 /* include/linux/sched/signal.h */
#define FS_OPEN_EXEC_PERM 0x00040000 /* include/linux/fsnotify_backend.h */
#define PID_FS_MAGIC 0x50494446 /* include/uapi/linux/magic.h */
#define PATH_SIZE EXEC_PATH_SIZE

char LICENSE[] SEC("license") = "Dual BSD/GPL";

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, EXECS_IN_FLIGHT);
	__type(key, __u32); /* thread id: threads of one process may execve at once */
	__type(value, struct exec_record);
} exec_args SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, READERS);
	__type(key, __u32); /* thread id of the reader */
	__type(value, __u64); /* struct fsnotify_group * */
} ig_fa_pick_ctx SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, EXECS_IN_FLIGHT);
	__uint(value_size, sizeof(struct exec_record));
} ig_fa_records SEC(".maps");

/* A record is larger than a BPF stack. [1] stays zero but for the tid: "not known". */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 2);
	__type(key, __u32);
	__type(value, struct exec_record);
} scratch SEC(".maps");

/*
 * The names of runtime binaries. Recording every exec of the host would slow all of them down.
 * A runtime that is executed by another name is held all the same, without a record: user
 * space then reads its arguments from /proc.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 1024);
	__uint(key_size, EXEC_NAME_SIZE); /* padded with zeros */
	__type(value, __u8);
} runtime_names SEC(".maps");

/* A path, and room to read a whole name from any place in it; the name. */
struct path_text {
	char text[PATH_SIZE + EXEC_NAME_SIZE];
	char name[EXEC_NAME_SIZE];
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct path_text);
} paths SEC(".maps");

/* How processes ended that user space asked for by inserting their tgid. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct exit_record);
} exit_status SEC(".maps");

/* Their ends, for readers that live in a child pid namespace and so can have no pidfd. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} ends SEC(".maps");

/* Threads that the OOM killer chose, until they end. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, OOM_VICTIMS);
	__type(key, __u32); /* thread id */
	__type(value, __u64); /* when it was chosen: CLOCK_BOOTTIME, ns */
} oom_victims SEC(".maps");

/* What ended so: struct oom_kill. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1024 * 1024);
} oom_kills SEC(".maps");

/*
 * `exec`: a runtime's process, and all that descends from it, are followed until one of them executes
 * a program in the container's mount namespace: that is the container's new process.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, EXECS_JOINING);
	__type(key, __u32); /* the runtime's tgid */
	__type(value, struct exec_join);
} joining SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, EXECS_JOINING);
	__type(key, __u32); /* tgid */
	__type(value, struct exec_member);
} members SEC(".maps");

/* The processes that came into a container so, until they end. A program may be a runtime in turn. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, EXECS_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32); /* tgid */
	__type(value, struct exec_outcome);
} joined SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 512 * 1024);
} outcomes SEC(".maps");

/* Executions of what may be a runtime that nobody watches: struct exec_sighting. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 256 * 1024);
} sightings SEC(".maps");

/*
 * A count that no gate has a part in: at the end of each execve, of the file that was executed. It
 * tells by how much what gates tell of falls short.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, COUNTS);
	__type(key, __u32);
	__type(value, __u64);
} counts SEC(".maps");

/* Threads whose execve a gate was asked about, and when (CLOCK_MONOTONIC, ns): user space says so. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, ASKED_MAX);
	__type(key, __u32); /* thread id */
	__type(value, __u64);
} asked SEC(".maps");

/* What look_at() found; each thread that runs it has a place of its own. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EXEC_LOOKS);
	__type(key, __u32);
	__type(value, struct process_facts);
} looks SEC(".maps");

/* Our own fanotify group. Set by set_tracer_group(): its address never leaves the kernel. */
static volatile __u64 tracer_group;
static volatile __u64 lost_records;
/* Until then (ns of CLOCK_MONOTONIC) starts by files that are watched are told, too: tell_all(). */
static volatile __u64 tell_until;

static __always_inline int read_argument(struct exec_record *rec, const char *arg)
{
	__u32 at = rec->args_size;
	long n;

	if (at >= EXEC_ARGS_SIZE)
		return -1;
	/* clang drops the check above on a reloaded value; the mask keeps it for the verifier */
	at &= EXEC_ARGS_SIZE - 1;
	n = bpf_probe_read_user_str(&rec->args[at], EXEC_ARG_SIZE, arg);
	if (n < 0) /* A tracepoint can't fault a page in: user space reads it from the held task. */
		rec->flags |= EXEC_INCOMPLETE;
	if (n <= 0) { /* 0: older kernels say so of an empty string (strncpy_from_user_nofault()) */
		rec->args[at] = 0;
		n = 1;
	}
	if (n >= EXEC_ARG_SIZE)
		rec->flags |= EXEC_TRUNCATED;
	rec->args_size = at + n;
	rec->argc++;
	return 0;
}

static __always_inline void read_arguments(struct exec_record *rec, const char *const *argv)
{
	const char *arg;

	for (int i = 0; i < EXEC_ARGS_MAX; i++) {
		arg = NULL;
		if (bpf_probe_read_user(&arg, sizeof(arg), argv + i)) {
			rec->flags |= EXEC_INCOMPLETE;
			return;
		}
		if (!arg)
			return;
		if (read_argument(rec, arg))
			break;
	}
	rec->flags |= EXEC_TRUNCATED;
}

/*
 * Is it in /proc (runtimes execute themselves there), or too long, or not to be read yet? fork()
 * leaves a child's pages old (copy_present_pte()), and a CPU that doesn't set the access flag
 * itself faults on them, which a tracepoint can't serve: arm64 before ARMv8.1.
 */
static __always_inline int is_beyond_names(const char *text, long size)
{
	return size <= 0 || size >= PATH_SIZE ||
	       (text[0] == '/' && text[1] == 'p' && text[2] == 'r' && text[3] == 'o' &&
		text[4] == 'c' && text[5] == '/');
}

static __always_inline int may_be_runtime(const char *filename)
{
	__u32 zero = 0, at;
	struct path_text *path = bpf_map_lookup_elem(&paths, &zero);
	long size;

	if (!path)
		return 1;
	size = bpf_probe_read_user_str(path->text, PATH_SIZE, filename);
	if (is_beyond_names(path->text, size))
		return 1;
	at = size - 1; /* the NUL */
	for (int i = 0; i < EXEC_NAME_SIZE - 1; i++) {
		if (!at || path->text[(at - 1) & (PATH_SIZE - 1)] == '/')
			break;
		at--;
	}
	__builtin_memset(path->name, 0, sizeof(path->name));
	bpf_probe_read_kernel_str(path->name, sizeof(path->name), &path->text[at & (PATH_SIZE - 1)]);
	return bpf_map_lookup_elem(&runtime_names, path->name) != NULL;
}

#define CAP_SYS_ADMIN 21

static __always_inline int has_admin(const struct cred *cred)
{
	__u64 caps = 0;

	bpf_probe_read_kernel(&caps, sizeof(caps),
			      (void *)cred + bpf_core_field_offset(struct cred, cap_effective));
	return caps >> CAP_SYS_ADMIN & 1;
}

#define INODE_OF(proxy, kind) BPF_CORE_READ(proxy, kind, ns.inum)

static __always_inline struct pid_namespace *pid_namespace_of(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	struct pid_namespace *ns = NULL;
	void *at = (void *)pid + bpf_core_field_offset(struct pid, numbers) +
		   BPF_CORE_READ(pid, level) * bpf_core_type_size(struct upid) +
		   bpf_core_field_offset(struct upid, ns);

	if (pid)
		bpf_probe_read_kernel(&ns, sizeof(ns), at);
	return ns;
}

static __always_inline void read_namespaces(struct task_struct *task, __u32 *found)
{
	struct nsproxy *proxy = BPF_CORE_READ(task, nsproxy); /* NULL: a zombie */

	found[EXEC_NS_MNT] = INODE_OF(proxy, mnt_ns);
	found[EXEC_NS_NET] = INODE_OF(proxy, net_ns);
	found[EXEC_NS_PID] = BPF_CORE_READ(pid_namespace_of(task), ns.inum);
	found[EXEC_NS_IPC] = INODE_OF(proxy, ipc_ns);
	found[EXEC_NS_UTS] = INODE_OF(proxy, uts_ns);
	found[EXEC_NS_USER] = BPF_CORE_READ(task, real_cred, user_ns, ns.inum);
	found[EXEC_NS_CGROUP] = INODE_OF(proxy, cgroup_ns);
	found[EXEC_NS_TIME] = 0;
	if (bpf_core_field_exists(proxy->time_ns))
		found[EXEC_NS_TIME] = INODE_OF(proxy, time_ns);
}

static __always_inline void read_login(struct task_struct *task, struct exec_record *rec)
{
	rec->loginuid = rec->session = -1;
	if (bpf_core_field_exists(task->loginuid))
		rec->loginuid = BPF_CORE_READ(task, loginuid.val);
	if (bpf_core_field_exists(task->sessionid))
		rec->session = BPF_CORE_READ(task, sessionid);
}

/* All but the arguments. */
static __always_inline void describe_caller(struct exec_record *rec)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u64 pid_tgid = bpf_get_current_pid_tgid();

	rec->tid = (__u32)pid_tgid;
	rec->tgid = pid_tgid >> 32;
	rec->ppid = BPF_CORE_READ(task, real_parent, tgid);
	rec->start_time = BPF_CORE_READ(task, group_leader, start_boottime);
	rec->euid = BPF_CORE_READ(task, cred, euid.val);
	rec->userns_level = BPF_CORE_READ(task, cred, user_ns, level);
	rec->flags = has_admin(BPF_CORE_READ(task, cred)) ? 0 : EXEC_UNABLE;
	rec->argc = 0;
	rec->args_size = 0;
	read_namespaces(task, rec->namespaces);
	read_login(task, rec);
	bpf_get_current_comm(rec->comm, sizeof(rec->comm));
	BPF_CORE_READ_INTO(&rec->parent_comm, task, real_parent, group_leader, comm);
}

static __always_inline int record_exec(const char *const *argv)
{
	__u32 tid = (__u32)bpf_get_current_pid_tgid(), zero = 0;
	struct exec_record *rec = bpf_map_lookup_elem(&scratch, &zero);

	if (!rec)
		return 0;
	rec->argv = (__u64)argv;
	describe_caller(rec);
	read_arguments(rec, argv);
	if (bpf_map_update_elem(&exec_args, &tid, rec, BPF_ANY))
		__sync_fetch_and_add(&lost_records, 1);
	return 0;
}

static __always_inline int forget_exec(__u32 tid)
{
	bpf_map_delete_elem(&exec_args, &tid);
	return 0;
}

SEC("tracepoint/syscalls/sys_enter_execve")
int enter_execve(struct trace_event_raw_sys_enter *ctx)
{
	if (!may_be_runtime((const char *)ctx->args[0]))
		return 0;
	return record_exec((const char *const *)ctx->args[1]);
}

/* Its file may have no name at all (AT_EMPTY_PATH), and it is rare. */
SEC("tracepoint/syscalls/sys_enter_execveat")
int enter_execveat(struct trace_event_raw_sys_enter *ctx)
{
	return record_exec((const char *const *)ctx->args[2]);
}

SEC("tracepoint/syscalls/sys_exit_execve")
int exit_execve(void *ctx)
{
	return forget_exec((__u32)bpf_get_current_pid_tgid());
}

SEC("tracepoint/syscalls/sys_exit_execveat")
int exit_execveat(void *ctx)
{
	return forget_exec((__u32)bpf_get_current_pid_tgid());
}

/* Would its execve have been held? The kernel compares the same mark (fsnotify()). */
static __always_inline int is_watched(struct inode *inode)
{
	struct hlist_node *at = BPF_CORE_READ(inode, i_fsnotify_marks, list.first);

	for (int i = 0; i < MARKS_MAX && at; i++) {
		struct fsnotify_mark *mark =
			(void *)at - bpf_core_field_offset(struct fsnotify_mark, obj_list);

		if ((__u64)BPF_CORE_READ(mark, group) == tracer_group &&
		    BPF_CORE_READ(mark, mask) & FS_OPEN_EXEC_PERM)
			return 1;
		at = BPF_CORE_READ(at, next);
	}
	return 0;
}

static __always_inline int is_word(const char *word, const char *literal)
{
#pragma unroll
	for (int i = 0; i < 8; i++) { /* "restore" and the NUL */
		if (word[i] != literal[i])
			return 0;
		if (!literal[i])
			return 1;
	}
	return 0;
}

enum command {
	NO_COMMAND,
	START_COMMAND, /* it makes a container */
	EXEC_COMMAND,  /* it executes a process in one; of another program it says nothing */
	INIT_COMMAND,  /* a runtime that executes itself, inside of one */
};

static __always_inline enum command command_of(const char *word)
{
	if (is_word(word, "create") || is_word(word, "run") || is_word(word, "restore"))
		return START_COMMAND;
	if (is_word(word, "exec"))
		return EXEC_COMMAND;
	return is_word(word, "init") ? INIT_COMMAND : NO_COMMAND;
}

/*
 * Reads a command line as far as its command: options, each with a value or without, come before
 * it. Most programs have a first word that is neither: one look is enough. In the new memory, where
 * the words lie one after the other, which the kernel has just written (copy_strings()).
 */
static __always_inline enum command read_command(struct mm_struct *mm, char *word)
{
	__u64 at = BPF_CORE_READ(mm, arg_start), end = BPF_CORE_READ(mm, arg_end);
	int may_be_value = 0, goes_on = 0;

	for (int i = 0; i < WORDS_MAX && at < end; i++) {
		long size = bpf_probe_read_user_str(word, PATH_SIZE, (void *)at);
		int rest = goes_on;
		enum command command;

		if (size < 0)
			return NO_COMMAND;
		if (size == 0)
			word[0] = 0; /* see read_argument() */
		goes_on = size == PATH_SIZE;
		at += size ? size - goes_on : 1;
		if (!i || rest)
			continue;
		if (word[0] == '-') {
			may_be_value = 1;
			continue;
		}
		command = command_of(word);
		if (command != NO_COMMAND || !may_be_value)
			return command;
		may_be_value = 0;
	}
	return NO_COMMAND;
}

static __always_inline int is_named_as_runtime(struct file *file)
{
	const unsigned char *given = BPF_CORE_READ(file, f_path.dentry, d_name.name);
	char name[EXEC_NAME_SIZE] = {};

	bpf_probe_read_kernel_str(name, sizeof(name), given);
	return bpf_map_lookup_elem(&runtime_names, name) != NULL;
}

static __always_inline void read_new_arguments(struct exec_record *rec, struct linux_binprm *bprm,
					       struct mm_struct *mm)
{
	__u64 from = BPF_CORE_READ(mm, arg_start), size = BPF_CORE_READ(mm, arg_end) - from;

	rec->argv = 0;
	rec->argc = BPF_CORE_READ(bprm, argc);
	if (size > EXEC_ARGS_SIZE) {
		size = EXEC_ARGS_SIZE;
		rec->flags |= EXEC_TRUNCATED;
	}
	rec->args_size = size;
	if (bpf_probe_read_user(rec->args, size, (void *)from))
		rec->flags |= EXEC_INCOMPLETE;
}

static __always_inline void tell_sighting(struct linux_binprm *bprm, struct mm_struct *mm,
					  struct inode *inode, int watched)
{
	struct exec_sighting *seen = bpf_ringbuf_reserve(&sightings, sizeof(*seen), 0);

	if (!seen)
		return; /* as it stays unwatched, its next execution is told */
	describe_caller(&seen->exec);
	seen->exec.flags |= watched ? EXEC_WATCHED : 0;
	read_new_arguments(&seen->exec, bprm, mm);
	seen->inode = BPF_CORE_READ(inode, i_ino);
	seen->path[0] = 0;
	bpf_probe_read_kernel_str(seen->path, sizeof(seen->path), BPF_CORE_READ(bprm, filename));
	bpf_ringbuf_submit(seen, 0);
}

/* Only root's: a mark on what others execute would be theirs to place. */
static __always_inline int may_be_believed(struct task_struct *task)
{
	const struct cred *cred = BPF_CORE_READ(task, cred);

	return !BPF_CORE_READ(cred, euid.val) && has_admin(cred) &&
	       !BPF_CORE_READ(cred, user_ns, level);
}

static __always_inline void add_one(__u32 place)
{
	__u64 *count = bpf_map_lookup_elem(&counts, &place);

	if (count)
		__sync_fetch_and_add(count, 1);
}

/* A thread that failed in its execve leaves its word behind: only for as long as it may have been held. */
static __always_inline int was_asked(__u32 tid)
{
	__u64 *when = bpf_map_lookup_elem(&asked, &tid);
	int valid = when && bpf_ktime_get_ns() - *when < ASKED_FOR;

	if (when)
		bpf_map_delete_elem(&asked, &tid);
	return valid;
}

static __always_inline void count(enum command command, __u32 tid)
{
	int seen;

	if (command != START_COMMAND && command != EXEC_COMMAND)
		return;
	seen = was_asked(tid);
	add_one(command == START_COMMAND ? COUNT_START : COUNT_EXEC);
	if (!seen)
		add_one(command == START_COMMAND ? COUNT_START_UNSEEN : COUNT_EXEC_UNSEEN);
}

static __always_inline void look_for_runtime(struct linux_binprm *bprm, __u32 tid)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct path_text *path;
	enum command command;
	struct mm_struct *mm;
	struct inode *inode;
	struct file *file;
	__u32 zero = 0;
	int watched, named;

	if (!tracer_group || BPF_CORE_READ(bprm, argc) < 2 || !may_be_believed(task))
		return;
	path = bpf_map_lookup_elem(&paths, &zero);
	if (!path)
		return;
	mm = BPF_CORE_READ(task, mm);
	command = read_command(mm, path->text);
	if (command == INIT_COMMAND)
		return;
	file = BPF_CORE_READ(bprm, file);
	named = command == START_COMMAND || is_named_as_runtime(file);
	if (command == NO_COMMAND && !named)
		return;
	inode = BPF_CORE_READ(file, f_inode);
	watched = is_watched(inode);
	if (watched)
		count(command, tid);
	if ((!watched && named) || (command == START_COMMAND && bpf_ktime_get_ns() < tell_until))
		tell_sighting(bprm, mm, inode, watched);
}

/* Is it the process that is meant, and not one that has its number by now? */
static __always_inline int is_process(__u64 *start_time, struct task_struct *task)
{
	__u64 started = BPF_CORE_READ(task, group_leader, start_boottime);

	if (!*start_time)
		*start_time = started;
	return *start_time == started;
}

/* The join of which a process is a part; NULL: none. */
static __always_inline struct exec_join *join_of(__u32 *tgid, struct task_struct *task)
{
	struct exec_member *member = bpf_map_lookup_elem(&members, tgid);

	if (!member || !is_process(&member->start_time, task))
		return NULL;
	return bpf_map_lookup_elem(&joining, &member->runtime);
}

SEC("raw_tp/sched_process_fork")
int task_forked(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *child = (void *)ctx->args[1];
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct exec_member member = {}, *parent;
	__u32 tgid = bpf_get_current_pid_tgid() >> 32, forked;
	struct exec_join *join;

	parent = bpf_map_lookup_elem(&members, &tgid);
	if (!parent)
		return 0;
	join = join_of(&tgid, task);
	forked = BPF_CORE_READ(child, tgid);
	if (!join || forked == tgid)
		return 0;
	member.runtime = parent->runtime;
	member.start_time = BPF_CORE_READ(child, start_boottime);
	if (join->members >= MEMBERS_MAX || bpf_map_update_elem(&members, &forked, &member, BPF_ANY))
		join->settled = 1;
	else
		__sync_fetch_and_add(&join->members, 1);
	return 0;
}

static __always_inline void tell_outcome(const struct exec_outcome *outcome)
{
	struct exec_outcome *told = bpf_ringbuf_reserve(&outcomes, sizeof(*told), 0);

	if (!told)
		return;
	*told = *outcome;
	told->end = bpf_ktime_get_boot_ns();
	bpf_ringbuf_submit(told, 0);
}

/* One of its processes has ended, or is the container's: who is the last, and finds none there, tells. */
static __always_inline void leave_join(struct exec_join *join, __u32 runtime)
{
	struct exec_outcome none = {};

	__sync_fetch_and_add(&join->members, -1);
	if (*(volatile __s32 *)&join->members > 0)
		return; /* two that leave at once may both come here: user space takes the first */
	none.runtime_start = join->start_time;
	none.runtime = runtime;
	none.init = join->init;
	none.status = join->status;
	if (!join->settled)
		tell_outcome(&none);
	bpf_map_delete_elem(&joining, &runtime);
}

/* Has a process that is on its way executed its program? Elsewhere it is a wrapper's, or the runtime. */
static __always_inline void look_for_join(void)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u32 tgid = bpf_get_current_pid_tgid() >> 32, runtime;
	struct exec_member *member = bpf_map_lookup_elem(&members, &tgid);
	struct exec_outcome running = {.status = -1};
	struct exec_join *join;

	if (!member || tgid == member->runtime)
		return;
	join = join_of(&tgid, task);
	if (!join || BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum) != join->mnt)
		return;
	runtime = member->runtime;
	running.runtime_start = join->start_time;
	running.start = BPF_CORE_READ(task, group_leader, start_boottime);
	running.runtime = runtime;
	running.init = join->init;
	running.tgid = tgid;
	join->settled = 1;
	bpf_map_update_elem(&joined, &tgid, &running, BPF_ANY);
	bpf_map_delete_elem(&members, &tgid);
	leave_join(join, runtime);
}

/*
 * A thread that is not the leader takes the leader's id in a successful execve: old_pid, the
 * second argument, is its own. Raw tracepoints spare every exec and exit of the host the
 * filling of a perf record that nobody reads.
 */
SEC("raw_tp/sched_process_exec")
int exec_done(struct bpf_raw_tracepoint_args *ctx)
{
	look_for_runtime((struct linux_binprm *)ctx->args[2], (__u32)ctx->args[1]);
	look_for_join();
	return forget_exec((__u32)ctx->args[1]);
}

/* The rule of wait(2), wait_task_zombie(): the group's code if there is one, else its leader's. */
static __always_inline void read_status(struct task_struct *task, int leads, __s32 *status)
{
	if (BPF_CORE_READ(task, signal, flags) & SIGNAL_GROUP_EXIT)
		*status = BPF_CORE_READ(task, signal, group_exit_code);
	else if (leads)
		*status = BPF_CORE_READ(task, exit_code);
}

static __always_inline void process_end(struct task_struct *task, __u32 tid, __u32 tgid,
					struct exit_record *known)
{
	struct exec_end *end;

	read_status(task, tid == tgid, &known->status);
	if (BPF_CORE_READ(task, signal, live.counter))
		return; /* other threads live on */
	end = bpf_ringbuf_reserve(&ends, sizeof(*end), 0);
	if (!end)
		return;
	end->tgid = tgid;
	end->status = known->status;
	bpf_ringbuf_submit(end, 0);
}

static __always_inline void member_end(struct task_struct *task, __u32 tid, __u32 tgid,
				       struct exec_member *member)
{
	__u32 runtime = member->runtime;
	struct exec_join *join = join_of(&tgid, task);

	if (join && tgid == runtime) {
		read_status(task, tid == tgid, &join->status);
		is_process(&join->start_time, task);
	}
	if (BPF_CORE_READ(task, signal, live.counter))
		return;
	if (bpf_map_delete_elem(&members, &tgid))
		return; /* two threads end at once, and both see none that lives: the other one leaves */
	if (join)
		leave_join(join, runtime);
}

static __always_inline void joined_end(struct task_struct *task, __u32 tid, __u32 tgid,
				       struct exec_outcome *outcome)
{
	struct exec_outcome last;

	read_status(task, tid == tgid, &outcome->status);
	if (BPF_CORE_READ(task, signal, live.counter))
		return;
	last = *outcome; /* once it is deleted another may have its place */
	if (bpf_map_delete_elem(&joined, &tgid))
		return; /* two threads end at once, and both see none that lives: the other one tells */
	if (is_process(&last.start, task))
		tell_outcome(&last);
}

static __always_inline struct kernfs_node *parent_of(struct kernfs_node *node)
{
	struct kernfs_node___rcu *newer = (void *)node;

	if (bpf_core_field_exists(newer->__parent))
		return BPF_CORE_READ(newer, __parent);
	return BPF_CORE_READ(node, parent);
}

static __always_inline void read_cgroup(struct kernfs_node *node, struct process_facts *facts)
{
	struct kernfs_node *parent;

	facts->cgroup_id = BPF_CORE_READ(node, id);
	for (int i = 0; i < CGROUP_DEPTH; i++) {
		__u32 at = facts->cgroup_size;
		long size;

		parent = parent_of(node);
		if (!parent)
			return; /* the root has no name */
		if (at >= EXEC_CGROUP_SIZE)
			break;
		at &= EXEC_CGROUP_SIZE - 1;
		size = bpf_probe_read_kernel_str(&facts->cgroup[at], EXEC_CGROUP_NAME_SIZE,
						 BPF_CORE_READ(node, name));
		if (size <= 0)
			break;
		facts->cgroup_size = at + size;
		node = parent;
	}
	facts->cgroup_size = 0; /* not to be told as a whole */
	facts->cgroup_id = 0;
}

static __always_inline struct kernfs_node *memory_cgroup(struct css_set *set)
{
	struct cgroup_subsys_state *css = NULL;
	void *at;

	if (!bpf_core_enum_value_exists(enum cgroup_subsys_id, memory_cgrp_id))
		return NULL; /* a kernel without CONFIG_MEMCG */
	at = (void *)set + bpf_core_field_offset(struct css_set, subsys) +
	     bpf_core_enum_value(enum cgroup_subsys_id, memory_cgrp_id) * sizeof(void *);
	bpf_probe_read_kernel(&css, sizeof(css), at);
	return BPF_CORE_READ(css, cgroup, kn);
}

static __always_inline void read_pid_namespaces(struct task_struct *task, __u32 *found)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	int level = BPF_CORE_READ(pid, level);

	for (int i = 0; i < EXEC_PID_LEVELS; i++) {
		struct pid_namespace *ns = NULL;
		void *at = (void *)pid + bpf_core_field_offset(struct pid, numbers) +
			   (level - i) * bpf_core_type_size(struct upid) +
			   bpf_core_field_offset(struct upid, ns);

		found[i] = 0;
		if (i > level)
			continue;
		bpf_probe_read_kernel(&ns, sizeof(ns), at);
		found[i] = BPF_CORE_READ(ns, ns.inum);
	}
}

/* In the exit of a thread that was chosen: its namespaces and cgroups are still its own. */
static __always_inline void tell_oom_kill(struct task_struct *task, __u32 tgid)
{
	struct oom_kill *kill = bpf_ringbuf_reserve(&oom_kills, sizeof(*kill), 0);
	struct process_facts *victim;

	if (!kill)
		return;
	victim = &kill->victim;
	victim->tgid = tgid;
	victim->start_time = BPF_CORE_READ(task, group_leader, start_boottime);
	read_namespaces(task, victim->namespaces);
	victim->cgroup_size = 0;
	read_cgroup(BPF_CORE_READ(task, cgroups, dfl_cgrp, kn), victim);
	if (!victim->cgroup_size && victim->cgroup_id)
		read_cgroup(memory_cgroup(BPF_CORE_READ(task, cgroups)), victim);
	read_pid_namespaces(task, kill->pid_namespaces);
	BPF_CORE_READ_INTO(&kill->comm, task, group_leader, comm);
	bpf_ringbuf_submit(kill, 0);
}

/* One that was chosen in its exit may have passed our program before: its number is another thread's by now. */
static __always_inline int was_chosen(struct task_struct *task, __u32 tid)
{
	__u64 *chosen = bpf_map_lookup_elem(&oom_victims, &tid);
	int valid = chosen && *chosen >= BPF_CORE_READ(task, start_boottime);

	if (chosen)
		bpf_map_delete_elem(&oom_victims, &tid);
	return valid;
}

/* A task killed in its execve may never come to sys_exit. */
SEC("raw_tp/sched_process_exit")
int task_exit(void *ctx)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	__u64 pid_tgid = bpf_get_current_pid_tgid();
	__u32 tid = (__u32)pid_tgid, tgid = pid_tgid >> 32;
	struct exit_record *known = bpf_map_lookup_elem(&exit_status, &tgid);
	struct exec_outcome *outcome = bpf_map_lookup_elem(&joined, &tgid);
	struct exec_member *member = bpf_map_lookup_elem(&members, &tgid);

	if (was_chosen(task, tid)) {
		if (known)
			known->oom_victim = 1;
		if (outcome)
			outcome->oom_victim = 1;
		tell_oom_kill(task, tgid);
	}
	if (known)
		process_end(task, tid, tgid, known);
	if (outcome)
		joined_end(task, tid, tgid, outcome);
	if (member)
		member_end(task, tid, tgid, member);
	return forget_exec(tid);
}

/*
 * The victim is another task than the current one, which ran out of memory; and not always its
 * process's first thread (find_lock_task_mm()). It is looked at in its own exit, which comes now.
 */
SEC("tracepoint/oom/mark_victim")
int oom_victim(struct trace_event_raw_mark_victim *ctx)
{
	__u32 tid = ctx->pid;
	__u64 chosen = bpf_ktime_get_boot_ns();

	bpf_map_update_elem(&oom_victims, &tid, &chosen, BPF_ANY);
	return 0;
}

SEC("kprobe/fsnotify_remove_first_event")
int BPF_KPROBE(pick_event, struct fsnotify_group *group)
{
	__u32 reader = (__u32)bpf_get_current_pid_tgid();
	__u64 picked = (__u64)group;

	if (picked && picked == tracer_group)
		bpf_map_update_elem(&ig_fa_pick_ctx, &reader, &picked, BPF_ANY);
	return 0;
}

SEC("kretprobe/fsnotify_remove_first_event")
int BPF_KRETPROBE(picked_event, struct fanotify_event *event)
{
	__u32 reader = (__u32)bpf_get_current_pid_tgid(), one = 1, tid;
	struct exec_record *rec;

	if (!bpf_map_lookup_elem(&ig_fa_pick_ctx, &reader))
		return 0;
	bpf_map_delete_elem(&ig_fa_pick_ctx, &reader);
	if (!event)
		return 0;
	tid = BPF_CORE_READ(event, pid, numbers[0].nr);
	rec = bpf_map_lookup_elem(&exec_args, &tid);
	if (!rec) {
		/* One record for each event, even when there is nothing to tell. */
		rec = bpf_map_lookup_elem(&scratch, &one);
		if (!rec)
			return 0;
		rec->tid = tid;
	}
	if (bpf_map_push_elem(&ig_fa_records, rec, BPF_ANY))
		__sync_fetch_and_add(&lost_records, 1);
	return 0;
}

/*
 * The programs below are never attached: user space runs them with
 * BPF_PROG_TEST_RUN, in its own context, where `current` is the caller.
 */
static __always_inline struct file *file_of(__u32 fd)
{
	struct task_struct *task = (struct task_struct *)bpf_get_current_task();
	struct file **fds, *file = NULL;

	if (fd >= BPF_CORE_READ(task, files, fdt, max_fds))
		return NULL;
	fds = BPF_CORE_READ(task, files, fdt, fd);
	if (bpf_probe_read_kernel(&file, sizeof(file), fds + fd) || !file)
		return NULL;
	return file;
}

static __always_inline struct fsnotify_group *group_of(__u32 fd)
{
	return BPF_CORE_READ(file_of(fd), private_data);
}

SEC("raw_tp/sys_enter")
int set_tracer_group(struct bpf_raw_tracepoint_args *ctx)
{
	tracer_group = (__u64)group_of((__u32)ctx->args[0]);
	return tracer_group != 0;
}

/*
 * Returns the host thread id behind a permission event that was read and is not yet
 * answered: args[0] the group's fd, args[1] the event's fd. 0: not found.
 * It takes no lock: run it on the thread that reads, before any answer.
 */
SEC("raw_tp/sys_enter")
int pending_tid(struct bpf_raw_tracepoint_args *ctx)
{
	struct fsnotify_group *group = group_of((__u32)ctx->args[0]);
	const int wanted = (int)ctx->args[1];
	struct list_head *head, *at;

	if (!group)
		return 0;
	head = (void *)group +
	       bpf_core_field_offset(struct fsnotify_group, fanotify_data) +
	       bpf_core_field_offset(struct fanotify_group_private_data, access_list);
	at = BPF_CORE_READ(head, prev); /* the kernel appends: ours is the last */
	for (int i = 0; i < PENDING_MAX; i++) {
		struct fanotify_perm_event *event;

		if (!at || at == head)
			return 0;
		event = (void *)at - bpf_core_field_offset(struct fanotify_perm_event, fae) -
			bpf_core_field_offset(struct fanotify_event, fse) -
			bpf_core_field_offset(struct fsnotify_event, list);
		if (BPF_CORE_READ(event, fd) == wanted)
			return BPF_CORE_READ(event, fae.pid, numbers[0].nr);
		at = BPF_CORE_READ(at, prev);
	}
	return 0;
}

/*
 * For args[0] ns from now on all starts are told: who opened a file right before it was marked was
 * not held, and finds it marked at the end of its execve.
 */
SEC("raw_tp/sys_enter")
int tell_all(struct bpf_raw_tracepoint_args *ctx)
{
	tell_until = bpf_ktime_get_ns() + ctx->args[0];
	return 0;
}

/* The leader of the process that a pidfd is of; NULL: it is gone. */
static __always_inline struct task_struct *leader_of(__u32 pidfd)
{
	struct file *file = file_of(pidfd);
	struct inode *inode = BPF_CORE_READ(file, f_inode);
	struct hlist_node *first;
	struct pid *pid;

	if (!file)
		return NULL;
	if (BPF_CORE_READ(inode, i_sb, s_magic) == PID_FS_MAGIC) /* since Linux 6.9 */
		pid = BPF_CORE_READ(inode, i_private);
	else
		pid = BPF_CORE_READ(file, private_data);
	first = BPF_CORE_READ(pid, tasks[1].first); /* PIDTYPE_TGID */
	if (!first)
		return NULL;
	return (void *)first - bpf_core_field_offset(struct task_struct, pid_links[1]);
}

/*
 * Looks at the process of a pidfd: args[0]. What is found is in looks[args[1]]. With args[2] its
 * wait status is remembered from now on, in exit_status. Returns its pid; 0: it is gone.
 */
SEC("raw_tp/sys_enter")
int look_at(struct bpf_raw_tracepoint_args *ctx)
{
	struct task_struct *task = leader_of((__u32)ctx->args[0]);
	__u32 place = (__u32)ctx->args[1], tgid = BPF_CORE_READ(task, tgid);
	struct process_facts *facts = bpf_map_lookup_elem(&looks, &place);
	struct exit_record unknown = {.status = -1};

	if (!facts)
		return 0;
	facts->tgid = 0;
	facts->cgroup_size = 0;
	if (!task)
		return 0;
	if (ctx->args[2])
		bpf_map_update_elem(&exit_status, &tgid, &unknown, BPF_NOEXIST);
	facts->start_time = BPF_CORE_READ(task, start_boottime);
	read_namespaces(task, facts->namespaces);
	read_cgroup(BPF_CORE_READ(task, cgroups, dfl_cgrp, kn), facts);
	if (leader_of((__u32)ctx->args[0]) != task) /* it executed something on another thread */
		return 0;
	facts->tgid = tgid;
	return tgid;
}
