/*
 * proc - what the kernel says about processes: /proc, pidfd, groups.
 *
 * A pid names a process only together with its start time: pids are used again.
 * An engine's processes are those of its group and session; the engine is
 * their leader, so both numbers are its pid.
 */
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct proc {
    pid_t pid, parent, group, session;
    char state;          /* 'R', 'S', 'T', 'Z', ... */
    uint64_t start_time; /* clock ticks since boot */
    uint64_t rss_bytes;
};

/* False when there is no such process. */
bool proc_read(pid_t pid, struct proc *out);

/* It runs (is no zombie), it is the one that started then, and it is ours (same user). */
bool proc_is(pid_t pid, uint64_t start_time);

/* The living processes of this leader's group or session, itself included
 * unless `without_leader`; at most `room` pids; how many were found. */
size_t proc_members(pid_t leader, bool without_leader, pid_t *pids, size_t room);

/* Resident bytes of a leader and all its members. */
uint64_t proc_rss(pid_t leader);

/* Signals the leader's group and members of its session that left the group. */
void proc_signal(pid_t leader, int signal);

/* Reaps dead members of the group that are our children by now (orphans: we are
 * the sub-reaper), but never the leader: libuv waits for that one. */
void proc_reap_orphans(pid_t leader);

/* A process of ours whose standard output or error is a file in some folder. */
struct proc_writer {
    pid_t pid, session;
    char file[128]; /* its name in the folder */
};

/* All of them; at most `room`; how many were found. */
size_t proc_writers(const char *folder, struct proc_writer *out, size_t room);

/* Who listens on 127.0.0.1:port? */
enum proc_listener {
    PROC_LISTENER_NONE,    /* nobody */
    PROC_LISTENER_OURS,    /* processes of this leader only */
    PROC_LISTENER_STRANGER /* somebody else; `who` says what could be found out */
};
enum proc_listener proc_listener(unsigned port, pid_t leader, char *who, size_t room);

/* A TCP port that is free on 127.0.0.1 now; 0 when there is none. */
unsigned proc_free_port(void);

/* A descriptor that polls readable when the process ends; -1 with errno. */
int proc_pidfd(pid_t pid);
