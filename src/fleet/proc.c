/* proc - see proc.h. */
#include "fleet/proc.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/always.h"

enum { MEMBERS_MAX = 256, LISTENERS_MAX = 16 };

bool proc_read(pid_t pid, struct proc *out)
{
    char path[64], text[1024];
    unsigned long long start;
    long rss;
    int parent, group, session;

    snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
    FILE *f = fopen(path, "re");
    if (!f)
        return false;
    size_t n = fread(text, 1, sizeof(text) - 1, f);
    fclose(f);
    text[n] = '\0';
    /* The second field, the name in brackets, may hold spaces and brackets. */
    const char *rest = strrchr(text, ')');
    if (!rest || sscanf(rest + 1,
                        " %c %d %d %d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d "
                        "%llu %*u %ld",
                        &out->state, &parent, &group, &session, &start, &rss) != 6)
        return false;
    out->pid = pid;
    out->parent = parent;
    out->group = group;
    out->session = session;
    out->start_time = start;
    out->rss_bytes = (uint64_t)rss * (uint64_t)sysconf(_SC_PAGESIZE);
    return true;
}

static bool runs(const struct proc *p)
{
    return p->state != 'Z' && p->state != 'X';
}

bool proc_is(pid_t pid, uint64_t start_time)
{
    char path[64];
    struct stat st;
    struct proc p;

    snprintf(path, sizeof(path), "/proc/%d", (int)pid);
    return pid > 0 && proc_read(pid, &p) && runs(&p) && p.start_time == start_time &&
           stat(path, &st) == 0 && st.st_uid == geteuid();
}

/* The next process in /proc; 0 at the end. */
static pid_t next_pid(DIR *d)
{
    for (struct dirent *e; (e = readdir(d));) {
        char *end;
        long pid = strtol(e->d_name, &end, 10);

        if (*end == '\0' && pid > 0)
            return (pid_t)pid;
    }
    return 0;
}

size_t proc_members(pid_t leader, bool without_leader, pid_t *pids, size_t room)
{
    DIR *d = opendir("/proc");
    struct proc p;
    size_t n = 0;

    if (!d)
        return 0;
    for (pid_t pid; n < room && (pid = next_pid(d));) {
        if (without_leader && pid == leader)
            continue;
        if (proc_read(pid, &p) && runs(&p) && (p.group == leader || p.session == leader))
            pids[n++] = pid;
    }
    closedir(d);
    return n;
}

uint64_t proc_rss(pid_t leader)
{
    pid_t pids[MEMBERS_MAX];
    size_t n = proc_members(leader, false, pids, MEMBERS_MAX);
    uint64_t sum = 0;
    struct proc p;

    for (size_t i = 0; i < n; i++)
        if (proc_read(pids[i], &p))
            sum += p.rss_bytes;
    return sum;
}

void proc_signal(pid_t leader, int signal)
{
    pid_t pids[MEMBERS_MAX];
    struct proc p;

    ALWAYS(leader > 1);
    kill(-leader, signal);
    size_t n = proc_members(leader, true, pids, MEMBERS_MAX);
    for (size_t i = 0; i < n; i++)
        if (proc_read(pids[i], &p) && p.group != leader && p.session == leader)
            kill(pids[i], signal);
}

void proc_reap_orphans(pid_t leader)
{
    for (;;) {
        siginfo_t info = {0};

        /* Looked at first and left in place: the leader is libuv's to wait for. */
        if (waitid(P_PGID, (id_t)leader, &info, WEXITED | WNOHANG | WNOWAIT) != 0 ||
            info.si_pid == 0 || info.si_pid == leader)
            return;
        if (waitpid(info.si_pid, NULL, WNOHANG) != info.si_pid)
            return;
    }
}

/* The name of the file in `folder` that this descriptor leads to, or false. */
static bool leads_into(pid_t pid, int fd, const char *folder, char *name, size_t room)
{
    char path[64], file[PATH_MAX];
    size_t n = strlen(folder);

    snprintf(path, sizeof(path), "/proc/%d/fd/%d", (int)pid, fd);
    ssize_t got = readlink(path, file, sizeof(file) - 1);
    if (got < 0)
        return false;
    file[got] = '\0';
    if (strncmp(file, folder, n) != 0 || file[n] != '/' || strchr(file + n + 1, '/'))
        return false;
    return snprintf(name, room, "%s", file + n + 1) < (int)room;
}

size_t proc_writers(const char *folder, struct proc_writer *out, size_t room)
{
    char real[PATH_MAX];
    struct proc p;
    size_t n = 0;
    DIR *d = realpath(folder, real) ? opendir("/proc") : NULL;

    if (!d)
        return 0;
    for (pid_t pid; n < room && (pid = next_pid(d));)
        if (pid != getpid() && proc_read(pid, &p) && proc_is(pid, p.start_time) &&
            (leads_into(pid, 1, real, out[n].file, sizeof(out[n].file)) ||
             leads_into(pid, 2, real, out[n].file, sizeof(out[n].file)))) {
            out[n].pid = pid;
            out[n].session = p.session;
            n++;
        }
    closedir(d);
    return n;
}

/* Local addresses, as /proc/net/tcp and tcp6 print them (32-bit words in host
 * order), whose listeners take what is sent to 127.0.0.1. */
static bool takes_loopback(const char *address)
{
    char loopback[9], mapped[33];

    snprintf(loopback, sizeof(loopback), "%08X", htonl(INADDR_LOOPBACK));
    snprintf(mapped, sizeof(mapped), "0000000000000000%08X%s", htonl(0xffff), loopback);
    return strspn(address, "0") == strlen(address) || strcmp(address, loopback) == 0 ||
           strcmp(address, mapped) == 0;
}

static size_t listening_inodes(const char *table, unsigned port, unsigned long *inodes, size_t n)
{
    FILE *f = fopen(table, "re");
    char line[512], address[40];
    unsigned line_port, state;
    unsigned long inode;

    if (!f)
        return n;
    while (n < LISTENERS_MAX && fgets(line, sizeof(line), f))
        if (sscanf(line, " %*d: %39[0-9A-F]:%x %*[0-9A-F]:%*x %x %*s %*s %*s %*s %*s %lu", address,
                   &line_port, &state, &inode) == 4 &&
            line_port == port && state == 0x0a /* LISTEN */ && takes_loopback(address))
            inodes[n++] = inode;
    fclose(f);
    return n;
}

static bool holds_socket(pid_t pid, unsigned long inode)
{
    char path[64], want[64], name[64];
    bool found = false;

    snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
    snprintf(want, sizeof(want), "socket:[%lu]", inode);
    DIR *d = opendir(path);
    if (!d)
        return false;
    for (struct dirent *e; !found && (e = readdir(d));) {
        ssize_t n = readlinkat(dirfd(d), e->d_name, name, sizeof(name) - 1);
        if (n > 0) {
            name[n] = '\0';
            found = strcmp(name, want) == 0;
        }
    }
    closedir(d);
    return found;
}

static void describe_holder(unsigned long inode, char *who, size_t room)
{
    DIR *d = opendir("/proc");
    char path[64], name[64] = "";

    snprintf(who, room, "a process of another user");
    if (!d)
        return;
    for (pid_t pid; (pid = next_pid(d));) {
        if (!holds_socket(pid, inode))
            continue;
        snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
        FILE *f = fopen(path, "re");
        if (f) {
            if (fgets(name, sizeof(name), f))
                name[strcspn(name, "\n")] = '\0';
            fclose(f);
        }
        snprintf(who, room, "process %d (%s)", (int)pid, name);
        break;
    }
    closedir(d);
}

static bool held_by_any(const pid_t *pids, size_t n, unsigned long inode)
{
    for (size_t i = 0; i < n; i++)
        if (holds_socket(pids[i], inode))
            return true;
    return false;
}

enum proc_listener proc_listener(unsigned port, pid_t leader, char *who, size_t room)
{
    unsigned long inodes[LISTENERS_MAX];
    pid_t pids[MEMBERS_MAX];
    size_t n = listening_inodes("/proc/net/tcp", port, inodes, 0);

    n = listening_inodes("/proc/net/tcp6", port, inodes, n);
    if (n == 0)
        return PROC_LISTENER_NONE;
    size_t members = proc_members(leader, false, pids, MEMBERS_MAX);
    for (size_t i = 0; i < n; i++)
        if (!held_by_any(pids, members, inodes[i])) {
            describe_holder(inodes[i], who, room);
            return PROC_LISTENER_STRANGER;
        }
    return PROC_LISTENER_OURS;
}

unsigned proc_free_port(void)
{
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t n = sizeof(a);
    unsigned port = 0;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        return 0;
    if (bind(fd, (struct sockaddr *)&a, sizeof(a)) == 0 &&
        getsockname(fd, (struct sockaddr *)&a, &n) == 0)
        port = ntohs(a.sin_port);
    close(fd);
    return port;
}

int proc_pidfd(pid_t pid)
{
    return (int)syscall(SYS_pidfd_open, pid, 0);
}
