/*
 * gateway - see gateway.h.
 *
 * The main thread owns the control socket and the newest table; it does
 * nothing on the way of a request.  A switch:
 *
 *   manager ──table──▶ main: table_parse, publish ──eventfd──▶ each worker: adopt, stamp
 *   manager ◀──ack──── main ◀──eventfd── the worker that was the last
 *
 * Managers come and go: one that connects gets a hello with the counters
 * segment and all listening sockets, and replaces the one before.
 */
#include "gateway/gateway.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <jansson.h>
#include <netinet/in.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"
#include "gateway/control.h"
#include "gateway/counters.h"
#include "gateway/table.h"
#include "gateway/tls.h"
#include "gateway/worker.h"

enum { LISTEN_MAX = 32, DRAIN_DEFAULT_MS = 600000, PEER_PLACES = 1 << 16 };

struct adoption {
    _Atomic uint64_t epoch; /* the newest table that this worker has adopted */
    _Atomic uint64_t at_ns; /* when; written before epoch, so never too early for it */
} __attribute__((aligned(64)));

struct gateway {
    /* From the command line. */
    int control;     /* listening control socket; owned */
    int counters_fd; /* owned */
    unsigned nworkers;
    char *listen[LISTEN_MAX];    /* borrowed from argv */
    bool tls_listen[LISTEN_MAX]; /* it begins with https:// */
    size_t nlisten;
    int listen_fds[CONTROL_FDS_MAX]; /* address by address, a socket for each worker; owned by
                                        the workers */
    size_t nlisten_fds;

    struct counters *counters;                /* owned mapping */
    struct worker *workers[COUNTERS_WORKERS]; /* owned */
    pthread_mutex_t lock; /* for `table`; taken at a switch, never for a request */
    struct table *table;  /* counted; NULL before the first */
    SSL_CTX *tls;         /* counted; under `lock` too; NULL: no certificate */
    int access_fd;        /* owned, under `lock` too; -1: no access log */
    bool access_text;
    atomic_uint access_news; /* grows with each new file */
    struct adoption adopted[COUNTERS_WORKERS];
    atomic_uint peers[PEER_PLACES]; /* connections by hash of the client's address */
    uint64_t peer_seed;             /* so that nobody can choose whom to share a count with */
    uint64_t acked;                 /* newest epoch that the manager was told of */
    atomic_uint running;            /* worker threads */
    atomic_int wish;                /* enum gateway_wish */
    uint64_t drain_deadline_ns;     /* 0: not draining */
    int news;                       /* eventfd: workers to main; owned */
    int signals;                    /* signalfd; owned */
    int manager;                    /* connection; owned; -1: nobody */
    struct control_reader reader;
};

/* --- called by workers -------------------------------------------------------- */

struct table *gateway_table(struct gateway *g)
{
    pthread_mutex_lock(&g->lock);
    struct table *t = g->table ? table_ref(g->table) : NULL;
    pthread_mutex_unlock(&g->lock);
    return t;
}

bool gateway_access(struct gateway *g, unsigned *seen, int *fd, bool *text)
{
    if (atomic_load(&g->access_news) == *seen)
        return false;
    pthread_mutex_lock(&g->lock);
    *seen = atomic_load(&g->access_news);
    *fd = g->access_fd < 0 ? -1 : fcntl(g->access_fd, F_DUPFD_CLOEXEC, 0);
    *text = g->access_text;
    if (g->access_fd >= 0 && *fd < 0)
        log_error("no access log: %s", strerror(errno));
    pthread_mutex_unlock(&g->lock);
    return true;
}

SSL_CTX *gateway_tls(struct gateway *g)
{
    pthread_mutex_lock(&g->lock);
    SSL_CTX *tls = g->tls;
    if (tls)
        SSL_CTX_up_ref(tls);
    pthread_mutex_unlock(&g->lock);
    return tls;
}

enum gateway_wish gateway_wish(struct gateway *g)
{
    return (enum gateway_wish)atomic_load(&g->wish);
}

static void tell_main(struct gateway *g)
{
    uint64_t one = 1;

    if (write(g->news, &one, sizeof(one)) < 0)
        log_error("cannot wake the main thread: %s", strerror(errno));
}

/* The epoch that all workers have adopted, and when the last of them did. */
static uint64_t adopted_by_all(struct gateway *g, uint64_t *at_ns)
{
    uint64_t epoch = UINT64_MAX;

    *at_ns = 0;
    for (unsigned i = 0; i < g->nworkers; i++) {
        uint64_t e = atomic_load(&g->adopted[i].epoch);
        if (e < epoch)
            epoch = e;
        uint64_t at = atomic_load(&g->adopted[i].at_ns);
        if (e && at > *at_ns)
            *at_ns = at;
    }
    return epoch;
}

void gateway_adopted(struct gateway *g, unsigned index, uint64_t epoch)
{
    atomic_store(&g->adopted[index].at_ns, clock_ns());
    atomic_store(&g->adopted[index].epoch, epoch);
    tell_main(g);
}

void gateway_worker_done(struct gateway *g)
{
    atomic_fetch_sub(&g->running, 1);
    tell_main(g);
}

unsigned gateway_peer_enter(struct gateway *g, const struct sockaddr *peer, unsigned *place)
{
    const struct sockaddr_in *in = (const void *)peer;
    const struct sockaddr_in6 *in6 = (const void *)peer;
    uint64_t key = g->peer_seed;

    if (peer->sa_family == AF_INET) {
        key ^= in->sin_addr.s_addr;
    } else if (peer->sa_family == AF_INET6) {
        uint64_t net;
        memcpy(&net, &in6->sin6_addr, sizeof(net));
        key ^= net;
    }
    key *= UINT64_C(0x9e3779b97f4a7c15);
    *place = (unsigned)(key >> 48) % PEER_PLACES;
    return atomic_fetch_add_explicit(&g->peers[*place], 1, memory_order_relaxed) + 1;
}

void gateway_peer_leave(struct gateway *g, unsigned place)
{
    atomic_fetch_sub_explicit(&g->peers[place], 1, memory_order_relaxed);
}

/* --- the manager --------------------------------------------------------------- */

static void drop_manager(struct gateway *g)
{
    if (g->manager >= 0)
        close(g->manager);
    g->manager = -1;
    control_reader_fini(&g->reader);
}

static void send_json(struct gateway *g, json_t *j, const int *fds, size_t nfds)
{
    struct err err;
    char *text = json_dumps(j, JSON_COMPACT);

    json_decref(j);
    if (control_send(g->manager, span_str(text), fds, nfds, &err) < 0) {
        log_warn("the manager is gone (%s); serving on with the last table", err.text);
        drop_manager(g);
    }
    free(text);
}

static void say_hello(struct gateway *g)
{
    int fds[CONTROL_FDS_MAX];
    size_t n = 0;
    json_t *listen = json_array();

    for (size_t i = 0; i < g->nlisten; i++)
        json_array_append_new(listen, json_string(g->listen[i]));
    fds[n++] = g->counters_fd;
    fds[n++] = g->control;
    memcpy(fds + n, g->listen_fds, g->nlisten_fds * sizeof(int));
    n += g->nlisten_fds;
    send_json(g,
              json_pack("{s:s, s:i, s:I, s:i, s:o, s:s}", "type", "hello", "pid", (int)getpid(),
                        "epoch", (json_int_t)g->acked, "workers", (int)g->nworkers, "listen",
                        listen, "version", SEGUE_VERSION),
              fds, n);
}

static void on_manager_connects(struct gateway *g)
{
    int fd = accept4(g->control, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return;
    drop_manager(g);
    g->manager = fd;
    say_hello(g);
}

static void send_ack(struct gateway *g)
{
    uint64_t at_ns, epoch = adopted_by_all(g, &at_ns);

    if (epoch <= g->acked)
        return;
    g->acked = epoch;
    if (g->manager >= 0)
        send_json(g,
                  json_pack("{s:s, s:I, s:I}", "type", "ack", "epoch", (json_int_t)epoch,
                            "acked_ns", (json_int_t)at_ns),
                  NULL, 0);
}

static void wake_all(struct gateway *g)
{
    for (unsigned i = 0; i < g->nworkers; i++)
        worker_wake(g->workers[i]);
}

static void on_table(struct gateway *g, struct span message)
{
    struct err err;
    struct table *t = table_parse(message, g->table, &err);

    if (!t) {
        log_error("%s; the old table stays", err.text);
        send_json(g,
                  json_pack("{s:s, s:s, s:b}", "type", "refused", "message", err.text, "change",
                            err.status == 409),
                  NULL, 0);
        return;
    }
    if (g->table && t->epoch <= g->table->epoch) {
        log_error("table %llu is not newer than %llu; the old one stays",
                  (unsigned long long)t->epoch, (unsigned long long)g->table->epoch);
        send_json(g, json_pack("{s:s, s:s}", "type", "refused", "message", "epoch is not newer"),
                  NULL, 0);
        table_unref(t);
        return;
    }
    if (t->nslots > counter_read(&g->counters->nslots))
        atomic_store(&g->counters->nslots, t->nslots);
    pthread_mutex_lock(&g->lock);
    struct table *old = g->table;
    g->table = t;
    pthread_mutex_unlock(&g->lock);
    wake_all(g);
    table_unref(old);
}

/* A new file for the access log, or the same path opened anew after a rotation. */
static void on_access_log(struct gateway *g, json_t *message)
{
    const char *format = json_string_value(json_object_get(message, "format"));
    int fd = format ? control_take_fd(&g->reader) : -1;

    if (format && fd < 0) {
        log_error("the manager sent no descriptor for the access log; the old one stays");
        return;
    }
    pthread_mutex_lock(&g->lock);
    if (g->access_fd >= 0)
        close(g->access_fd);
    g->access_fd = fd;
    g->access_text = format && strcmp(format, "text") == 0;
    atomic_fetch_add(&g->access_news, 1);
    pthread_mutex_unlock(&g->lock);
    wake_all(g);
}

static void on_certificate(struct gateway *g, json_t *message)
{
    const char *chain = json_string_value(json_object_get(message, "chain"));
    const char *key = json_string_value(json_object_get(message, "key"));
    struct err err;
    SSL_CTX *tls = tls_context_new(span_str(chain), span_str(key), &err);

    if (!tls) {
        log_error("%s; the certificate before it stays", err.text);
        send_json(g, json_pack("{s:s, s:s}", "type", "refused", "message", err.text), NULL, 0);
        return;
    }
    pthread_mutex_lock(&g->lock);
    SSL_CTX *old = g->tls;
    g->tls = tls;
    pthread_mutex_unlock(&g->lock);
    SSL_CTX_free(old);
    wake_all(g);
    log_info("a certificate for new TLS connections is here");
}

static void wish(struct gateway *g, enum gateway_wish w, uint64_t drain_ms)
{
    atomic_store(&g->wish, w);
    g->drain_deadline_ns = w == GATEWAY_DRAIN ? clock_ns() + drain_ms * 1000000 : 0;
    wake_all(g);
}

static void on_message(struct gateway *g, struct span message)
{
    json_t *j = json_loadb(message.p, message.n, 0, NULL);
    const char *type = json_string_value(json_object_get(j, "type"));

    if (type && strcmp(type, "table") == 0) {
        on_table(g, message);
    } else if (type && strcmp(type, "certificate") == 0) {
        on_certificate(g, j);
    } else if (type && strcmp(type, "access_log") == 0) {
        on_access_log(g, j);
    } else if (type && strcmp(type, "stop") == 0) {
        json_int_t ms = json_integer_value(json_object_get(j, "drain_ms"));
        log_info("stopping; streams get %lld ms", (long long)ms);
        wish(g, ms > 0 ? GATEWAY_DRAIN : GATEWAY_END, (uint64_t)ms);
    } else {
        log_error("the manager sent a message of unknown type");
    }
    json_decref(j);
}

static void on_manager_bytes(struct gateway *g)
{
    struct err err;
    struct span message;
    bool broken = false;
    int rc = control_read(&g->reader, g->manager, &err);

    if (rc <= 0) {
        log_warn("the manager is gone; serving on with the last table");
        drop_manager(g);
        return;
    }
    while (g->manager >= 0 && control_next(&g->reader, &message, &broken))
        on_message(g, message);
    if (broken) {
        log_error("the manager's message is too large");
        drop_manager(g);
    }
}

/* --- signals and the main loop ------------------------------------------------- */

static void on_signal(struct gateway *g)
{
    struct signalfd_siginfo info;

    if (read(g->signals, &info, sizeof(info)) != sizeof(info))
        return;
    if (gateway_wish(g) == GATEWAY_RUN) {
        log_info("signal %u: finishing what is there", info.ssi_signo);
        wish(g, GATEWAY_DRAIN, DRAIN_DEFAULT_MS);
    } else {
        log_info("signal %u again: ending now", info.ssi_signo);
        wish(g, GATEWAY_END, 0);
    }
}

static int wait_ms(const struct gateway *g)
{
    if (g->drain_deadline_ns == 0)
        return -1;
    uint64_t now = clock_ns();
    return now >= g->drain_deadline_ns ? 0 : (int)((g->drain_deadline_ns - now) / 1000000 + 1);
}

static void main_loop(struct gateway *g)
{
    uint64_t n;

    while (atomic_load(&g->running)) {
        struct pollfd p[] = {
            {g->control, POLLIN, 0},
            {g->news, POLLIN, 0},
            {g->signals, POLLIN, 0},
            {g->manager, POLLIN, 0},
        };
        if (poll(p, COUNT_OF(p), wait_ms(g)) < 0 && errno != EINTR)
            break;
        if (p[1].revents && read(g->news, &n, sizeof(n)) == sizeof(n))
            send_ack(g);
        if (p[3].revents && g->manager == p[3].fd)
            on_manager_bytes(g);
        if (p[0].revents)
            on_manager_connects(g);
        if (p[2].revents)
            on_signal(g);
        if (gateway_wish(g) == GATEWAY_DRAIN && wait_ms(g) == 0) {
            log_warn("the time to finish is over: cutting what still runs");
            wish(g, GATEWAY_END, 0);
            g->drain_deadline_ns = 0;
        }
    }
}

/* --- life ----------------------------------------------------------------------- */

static int parse_arguments(struct gateway *g, int argc, char **argv, struct err *err)
{
    static const struct option options[] = {
        {"control-fd", 1, 0, 'c'},
        {"counters-fd", 1, 0, 'm'},
        {"workers", 1, 0, 'w'},
        {"listen", 1, 0, 'l'},
        {"listen-fds", 1, 0, 'f'},
        {"log-level", 1, 0, 'v'},
        {0},
    };
    int o;
    char *next;

    g->control = g->counters_fd = -1;
    while ((o = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (o) {
        case 'c':
            g->control = atoi(optarg);
            break;
        case 'm':
            g->counters_fd = atoi(optarg);
            break;
        case 'w':
            g->nworkers = (unsigned)atoi(optarg);
            break;
        case 'l':
            if (g->nlisten < LISTEN_MAX) {
                g->tls_listen[g->nlisten] = strncmp(optarg, "https://", 8) == 0;
                g->listen[g->nlisten++] = optarg;
            }
            break;
        case 'f':
            for (next = strtok(optarg, ","); next; next = strtok(NULL, ","))
                if (g->nlisten_fds < COUNT_OF(g->listen_fds))
                    g->listen_fds[g->nlisten_fds++] = atoi(next);
            break;
        case 'v':
            log_start("gateway", (enum log_level)log_level_by_name(optarg));
            break;
        default:
            return err_set(err, 400, "unknown argument");
        }
    }
    if (g->control < 0 || g->counters_fd < 0 || g->nworkers < 1 || g->nworkers > COUNTERS_WORKERS ||
        g->nlisten_fds != g->nlisten * g->nworkers)
        return err_set(err, 400, "`segue gateway` is started by `segue serve`, not by hand");
    return 0;
}

static void block_signals(struct gateway *g)
{
    sigset_t set;

    signal(SIGPIPE, SIG_IGN);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    pthread_sigmask(SIG_BLOCK, &set, NULL); /* inherited by the workers */
    g->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
}

static void raise_descriptors(void)
{
    struct rlimit r;

    if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
        r.rlim_cur = r.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &r) < 0)
            log_warn("cannot raise the limit of open files: %s", strerror(errno));
    }
}

static int start_workers(struct gateway *g, struct err *err)
{
    for (unsigned i = 0; i < g->nworkers; i++) {
        int fds[LISTEN_MAX];
        for (size_t a = 0; a < g->nlisten; a++)
            fds[a] = g->listen_fds[a * g->nworkers + i];
        g->workers[i] =
            worker_new(g, i, g->nworkers, fds, g->tls_listen, g->nlisten, g->counters, err);
        if (!g->workers[i])
            return -1;
    }
    for (unsigned i = 0; i < g->nworkers; i++) {
        atomic_fetch_add(&g->running, 1);
        if (worker_start(g->workers[i], err) < 0)
            return -1;
    }
    return 0;
}

int gateway_main(int argc, char **argv)
{
    struct gateway *g = NEW(struct gateway);
    struct err err;

    log_start("gateway", LOG_INFO);
    prctl(PR_SET_NAME, "segue-gateway"); /* we were started as /proc/self/exe */
    g->manager = g->access_fd = -1;
    pthread_mutex_init(&g->lock, NULL);
    if (getrandom(&g->peer_seed, sizeof(g->peer_seed), 0) < 0)
        g->peer_seed = clock_ns();
    if (parse_arguments(g, argc, argv, &err) < 0) {
        fprintf(stderr, "segue gateway: %s\n", err.text);
        free(g);
        return 2;
    }
    block_signals(g);
    raise_descriptors();
    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    g->news = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    g->counters = counters_map(g->counters_fd, &err);
    if (g->counters) {
        uint64_t lost = counters_settle(g->counters);
        if (lost)
            log_warn("%llu requests ended with the gateway before this one",
                     (unsigned long long)lost);
    }
    if (!g->counters || start_workers(g, &err) < 0) {
        log_error("cannot start: %s", err.text);
        return 1; /* threads may run: the process's end is the clean-up */
    }
    log_info("%u workers", g->nworkers);
    main_loop(g);

    for (unsigned i = 0; i < g->nworkers; i++)
        worker_join_free(g->workers[i]);
    drop_manager(g);
    table_unref(g->table);
    SSL_CTX_free(g->tls);
    counters_unmap(g->counters);
    close(g->news);
    close(g->signals);
    if (g->access_fd >= 0)
        close(g->access_fd);
    close(g->control);
    close(g->counters_fd);
    pthread_mutex_destroy(&g->lock);
    free(g);
    log_info("ended");
    return 0;
}
