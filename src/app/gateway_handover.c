/*
 * app/gateway_handover - the sockets that outlive a gateway.
 *
 * The manager binds them and hands them to the gateway it starts; a gateway that
 * was there before its manager hands them back, with the counters, in its hello.
 */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/gateway_link_internal.h"
#include "app/listen.h"
#include "base/alloc.h"
#include "base/clock.h"
#include "base/log.h"

enum { HELLO_WAIT_MS = 2000 };

int gateway_connect(struct gateway_link *g)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    memcpy(a.sun_path, g->path, sizeof(a.sun_path));
    if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof(a)) < 0) {
        close(fd);
        return -1;
    }
    return fd;
}

int gateway_open_control(struct gateway_link *g, struct err *err)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};

    memcpy(a.sun_path, g->path, sizeof(a.sun_path));
    unlink(g->path); /* nobody answered there: left over from a killed gateway */
    g->control = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    mode_t old = umask(0177);
    int rc = g->control < 0 ? -1 : bind(g->control, (struct sockaddr *)&a, sizeof(a));
    umask(old);
    if (rc < 0 || listen(g->control, 8) < 0)
        return err_set(err, 500, "cannot make the control socket %s: %s", g->path, strerror(errno));
    return 0;
}

int gateway_open_listeners(struct gateway_link *g, struct err *err)
{
    static const struct span https = {ADDRESS_TLS, sizeof(ADDRESS_TLS) - 1};
    char actual[LISTEN_TEXT_MAX];

    g->workers = g->config->workers;
    while (g->config->listen[g->nlisten])
        g->nlisten++;
    if (g->nlisten * g->workers + 2 > CONTROL_FDS_MAX)
        return err_set(err, 400, "%zu addresses times %u workers are more than %d sockets",
                       g->nlisten, g->workers, CONTROL_FDS_MAX - 2);
    g->listen = mem_zero((g->nlisten + 1) * sizeof(*g->listen));
    for (size_t i = 0; i < g->nlisten; i++) {
        const char *address = g->config->listen[i];
        bool tls = address_is_tls(address);
        if (listen_open(address + (tls ? https.n : 0), g->workers, g->listen_fds + g->nlisten_fds,
                        actual, err) < 0)
            return -1;
        g->nlisten_fds += g->workers;
        g->listen[i] = str_fmt("%s%s", tls ? https.p : "", actual);
    }
    return 0;
}

void gateway_close_listeners(struct gateway_link *g)
{
    for (size_t i = 0; i < g->nlisten_fds; i++)
        close(g->listen_fds[i]);
    g->nlisten_fds = 0;
}

/* Takes the sockets and the segment of a gateway that was here before us. */
int gateway_take_over(struct gateway_link *g, json_t *hello, struct err *err)
{
    json_t *listen = json_object_get(hello, "listen");
    struct control_reader *r = &g->reader;

    g->workers = (unsigned)json_integer_value(json_object_get(hello, "workers"));
    g->nlisten = json_array_size(listen);
    if (g->nlisten == 0 || r->nfds != 2 + g->nlisten * g->workers)
        return err_set(err, 500, "the gateway that runs there handed over %zu descriptors, not %zu",
                       r->nfds, 2 + g->nlisten * g->workers);
    g->listen = mem_zero((g->nlisten + 1) * sizeof(*g->listen));
    for (size_t i = 0; i < g->nlisten; i++)
        g->listen[i] = str_dup(json_string_value(json_array_get(listen, i)));
    g->counters_fd = r->fds[0];
    g->control = r->fds[1];
    g->nlisten_fds = r->nfds - 2;
    memcpy(g->listen_fds, r->fds + 2, g->nlisten_fds * sizeof(int));
    r->nfds = 0;
    return 0;
}

/* Port 0 asks for any port, so any is right. */
static bool same_address(const char *wanted, const char *actual)
{
    size_t n = strlen(wanted);

    if (n > 2 && strcmp(wanted + n - 2, ":0") == 0)
        return strncmp(wanted, actual, n - 1) == 0;
    return strcmp(wanted, actual) == 0;
}

void gateway_warn_of_changes(const struct gateway_link *g)
{
    size_t n = 0;
    bool same = g->workers == g->config->workers;

    for (; g->config->listen[n]; n++)
        same &= n < g->nlisten && same_address(g->config->listen[n], g->listen[n]);
    if (!same || n != g->nlisten)
        log_warn("the running gateway keeps its `listen` and `workers`; they change when segue is "
                 "stopped and started");
}

/* Reads until the hello has come; at start only, so waiting is no harm. */
json_t *gateway_wait_hello(struct gateway_link *g, struct err *err)
{
    uint64_t deadline = clock_ns() + HELLO_WAIT_MS * UINT64_C(1000000);
    struct span message;
    bool broken;

    while (clock_ns() < deadline) {
        struct pollfd p = {g->connection, POLLIN, 0};
        if (poll(&p, 1, HELLO_WAIT_MS) != 1)
            break;
        if (control_read(&g->reader, g->connection, err) <= 0)
            break;
        if (control_next(&g->reader, &message, &broken))
            return json_loadb(message.p, message.n, 0, NULL);
    }
    err_set(err, 500,
            "a gateway holds %s but does not answer; end it, or remove the file if it is stale",
            g->path);
    return NULL;
}
