/*
 * server - listening sockets, the list of connections, and the end of each
 * turn of the loop, when what the turn's handlers wrote is sent.
 */
#include "http/server.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "base/log.h"
#include "http/address.h"
#include "http/conn.h"

struct listener {
    struct list link;
    struct http_server *server; /* borrowed */
    union {
        uv_handle_t handle;
        uv_stream_t stream;
        uv_tcp_t tcp;
        uv_pipe_t pipe;
    } io;
    struct stat file;      /* of our socket file; unix only */
    struct sockaddr_un at; /* unix only */
};

static struct http_server_limits with_defaults(const struct http_server_limits *given)
{
    struct http_server_limits limits = given ? *given : (struct http_server_limits){0};

    limits.head_bytes = limits.head_bytes ? limits.head_bytes : 16384;
    limits.body_bytes = limits.body_bytes ? limits.body_bytes : 8 << 20;
    limits.connections = limits.connections ? limits.connections : 1024;
    limits.idle_ms = limits.idle_ms ? limits.idle_ms : 75000;
    limits.receive_ms = limits.receive_ms ? limits.receive_ms : 30000;
    limits.pending_bytes = limits.pending_bytes ? limits.pending_bytes : 4 << 20;
    return limits;
}

/* Sends what was written in this turn.  A handler that is called meanwhile may
 * add to the list; that goes out in the same turn. */
static void on_prepare(uv_prepare_t *prepare)
{
    struct http_server *s = prepare->data;

    while (!list_empty(&s->dirty)) {
        struct conn *c = CONTAINER_OF(s->dirty.next, struct conn, dirty);
        list_remove(&c->dirty);
        conn_flush(c);
    }
    uv_prepare_stop(prepare);
}

void server_touched(struct http_server *s)
{
    if (!s->closing)
        uv_prepare_start(&s->prepare, on_prepare);
}

struct http_server *http_server_new(uv_loop_t *loop, const struct http_server_limits *limits,
                                    http_handler_cb handler, void *arg)
{
    struct http_server *s = NEW(struct http_server);

    /* libuv writes with plain write(2): a client that left must be an error
     * code, not a signal. */
    signal(SIGPIPE, SIG_IGN);
    s->loop = loop;
    s->limits = with_defaults(limits);
    s->handler = handler;
    s->arg = arg;
    list_init(&s->listeners);
    list_init(&s->conns);
    list_init(&s->dirty);
    ALWAYS(uv_prepare_init(loop, &s->prepare) == 0);
    s->prepare.data = s;
    s->handles = 1;
    return s;
}

/* ---- listening ---- */

static void on_connection(uv_stream_t *stream, int status)
{
    struct listener *l = stream->data;

    if (status < 0)
        log_warn("http: a connection could not be accepted: %s", uv_strerror(status));
    else
        conn_accept(l->server, stream);
}

static void on_listener_closed(uv_handle_t *handle)
{
    struct listener *l = handle->data;
    struct http_server *s = l->server;

    free(l);
    server_handle_closed(s);
}

/* Removes our socket file, unless another server has put its own there. */
static void remove_file(const struct listener *l)
{
    struct stat now;

    if (l->at.sun_family == AF_UNIX && stat(l->at.sun_path, &now) == 0 &&
        now.st_dev == l->file.st_dev && now.st_ino == l->file.st_ino)
        unlink(l->at.sun_path);
}

static void listener_close(struct listener *l)
{
    remove_file(l);
    list_remove(&l->link);
    uv_close(&l->io.handle, on_listener_closed);
}

static int bind_tcp(struct listener *l, const char *text, const struct address *a, struct err *err)
{
    struct sockaddr_storage where;
    int len = sizeof(where);

    ALWAYS(uv_tcp_init(l->server->loop, &l->io.tcp) == 0);
    if (!address_numeric(a, &where))
        return err_set(err, 400, "cannot listen on %s: the host must be a numeric address", text);
    int rc = uv_tcp_bind(&l->io.tcp, (const struct sockaddr *)&where, 0);
    if (rc == 0)
        rc = uv_listen(&l->io.stream, SOMAXCONN, on_connection);
    if (rc == UV_EADDRINUSE)
        return err_set(err, 409,
                       "cannot listen on %s: port %d is in use by another process; "
                       "stop that process or listen on another port",
                       text, a->port);
    if (rc != 0)
        return err_set(err, 500, "cannot listen on %s: %s", text, uv_strerror(rc));
    if (l->server->port == 0 &&
        uv_tcp_getsockname(&l->io.tcp, (struct sockaddr *)&where, &len) == 0)
        l->server->port = where.ss_family == AF_INET
                              ? ntohs(((struct sockaddr_in *)(void *)&where)->sin_port)
                              : ntohs(((struct sockaddr_in6 *)(void *)&where)->sin6_port);
    return 0;
}

/* Makes room for our socket file: a stale one is removed, a live one and
 * anything that is no socket is left alone and refused. */
static int clear_path(const struct sockaddr_un *at, struct err *err)
{
    struct stat file;

    if (lstat(at->sun_path, &file) != 0)
        return errno == ENOENT
                   ? 0
                   : err_set(err, 500, "cannot look at %s: %s", at->sun_path, strerror(errno));
    if (!S_ISSOCK(file.st_mode))
        return err_set(err, 409,
                       "cannot listen on unix:%s: a file that is not a socket is there; "
                       "remove it or choose another path",
                       at->sun_path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, 500, "cannot make a unix socket: %s", strerror(errno));
    int rc = connect(fd, (const struct sockaddr *)at, sizeof(*at)) == 0 ? 0 : errno;
    close(fd);
    if (rc != ECONNREFUSED)
        return err_set(err, 409,
                       "cannot listen on unix:%s: another process %s; "
                       "stop it or choose another path",
                       at->sun_path, rc == 0 || rc == EAGAIN ? "is listening there" : strerror(rc));
    if (unlink(at->sun_path) != 0 && errno != ENOENT)
        return err_set(err, 500, "cannot remove the stale socket %s: %s", at->sun_path,
                       strerror(errno));
    return 0;
}

static int bind_unix(struct listener *l, const struct address *a, struct err *err)
{
    const char *path = a->path.sun_path;

    ALWAYS(uv_pipe_init(l->server->loop, &l->io.pipe, 0) == 0);
    if (clear_path(&a->path, err) != 0)
        return -1;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_set(err, 500, "cannot make a unix socket: %s", strerror(errno));
    /* Nobody can connect between bind() and listen(), so the mode is in force
     * from the first connection on. */
    if (bind(fd, (const struct sockaddr *)&a->path, sizeof(a->path)) != 0) {
        int rc = errno;
        close(fd);
        return err_set(err, 500, "cannot listen on unix:%s: %s; does its folder exist?", path,
                       strerror(rc));
    }
    l->at = a->path;
    int rc =
        chmod(path, 0600) != 0 || stat(path, &l->file) != 0 ? uv_translate_sys_error(errno) : 0;
    if (rc == 0)
        rc = uv_pipe_open(&l->io.pipe, fd);
    if (rc != 0)
        close(fd);
    if (rc == 0)
        rc = uv_listen(&l->io.stream, SOMAXCONN, on_connection);
    if (rc != 0)
        return err_set(err, 500, "cannot listen on unix:%s: %s", path, uv_strerror(rc));
    return 0;
}

int http_server_listen(struct http_server *s, const char *text, struct err *err)
{
    struct address address;

    if (address_parse(text, &address, err) != 0)
        return -1;
    struct listener *l = NEW(struct listener);
    l->server = s;
    l->io.handle.data = l;
    list_append(&s->listeners, &l->link);
    s->handles++;
    int rc = address.is_unix ? bind_unix(l, &address, err) : bind_tcp(l, text, &address, err);
    if (rc != 0)
        listener_close(l);
    return rc;
}

int http_server_port(const struct http_server *s)
{
    return s->port;
}

/* ---- the end ---- */

size_t http_server_calls(const struct http_server *s)
{
    return s->ncalls;
}

size_t http_server_unsent(const struct http_server *s)
{
    size_t n = 0;

    LIST_FOR_EACH(it, &s->conns)
    {
        n += conn_unsent(CONTAINER_OF(it, struct conn, link));
    }
    return n;
}

static void close_listeners(struct http_server *s)
{
    while (!list_empty(&s->listeners))
        listener_close(CONTAINER_OF(s->listeners.next, struct listener, link));
}

void http_server_drain(struct http_server *s)
{
    s->draining = true;
    close_listeners(s);
    LIST_FOR_EACH_SAFE(it, &s->conns)
    {
        struct conn *c = CONTAINER_OF(it, struct conn, link);
        if (c->state == CONN_IDLE)
            conn_close(c);
    }
}

void server_handle_closed(struct http_server *s)
{
    if (--s->handles == 0)
        free(s);
}

static void on_prepare_closed(uv_handle_t *handle)
{
    server_handle_closed(handle->data);
}

void http_server_close(struct http_server *s)
{
    if (s->closing)
        return;
    s->closing = true;
    close_listeners(s);
    while (!list_empty(&s->conns))
        conn_close(CONTAINER_OF(s->conns.next, struct conn, link));
    uv_close((uv_handle_t *)&s->prepare, on_prepare_closed);
}
