/*
 * The control socket's messages: in pieces, several at once, as large as they
 * may be and larger; descriptors that travel with them.
 */
#include "gateway/control.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/alloc.h"
#include "test.h"

static int ends[2]; /* we send to 0 and read from 1 */
static struct control_reader reader;

static unsigned open_descriptors(void)
{
    DIR *d = opendir("/proc/self/fd");
    unsigned n = 0;

    while (readdir(d))
        n++;
    closedir(d);
    return n;
}

static unsigned open_before;

static int setup(void **state)
{
    open_before = open_descriptors();
    memset(&reader, 0, sizeof(reader));
    return socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends);
}

/* Nothing stays open. */
static int teardown(void **state)
{
    control_reader_fini(&reader);
    for (int i = 0; i < 2; i++)
        if (ends[i] >= 0)
            close(ends[i]);
    return open_descriptors() == open_before ? 0 : -1;
}

static void head_of(size_t n, char out[4])
{
    for (int i = 0; i < 4; i++)
        out[i] = (char)(n >> 8 * i & 255);
}

static void put(const void *p, size_t n)
{
    assert_int_equal(write(ends[0], p, n), n);
}

static void send_text(const char *text)
{
    struct err err;

    if (control_send(ends[0], span_str(text), NULL, 0, &err) < 0)
        fail_msg("%s", err.text);
}

/* Reads until there is nothing there. */
static void read_all(void)
{
    struct err err;
    int rc;

    while ((rc = control_read(&reader, ends[1], &err)) == 1)
        ;
    assert_int_equal(rc, -1);
    assert_int_equal(err.status, 0);
}

static void expect(const char *text)
{
    struct span json;
    bool broken = true;

    assert_true(control_next(&reader, &json, &broken));
    assert_false(broken);
    assert_span(json, text);
}

static void expect_none(void)
{
    struct span json;
    bool broken = true;

    assert_false(control_next(&reader, &json, &broken));
    assert_false(broken);
}

static void several_at_once(void **state)
{
    expect_none();
    send_text("{\"type\":\"ack\"}");
    send_text("");
    send_text("{}");
    read_all();
    expect("{\"type\":\"ack\"}");
    expect("");
    expect("{}");
    expect_none();
    expect_none();
    send_text("again");
    read_all();
    expect("again");
    expect_none();
}

static void byte_for_byte(void **state)
{
    static const char text[] = "{\"type\":\"hello\",\"pid\":1}";
    char head[4];

    for (int round = 0; round < 3; round++) {
        head_of(sizeof(text) - 1, head);
        for (size_t i = 0; i < 4; i++) {
            put(&head[i], 1);
            read_all();
            expect_none();
        }
        for (size_t i = 0; i < sizeof(text) - 1; i++) {
            expect_none();
            put(&text[i], 1);
            read_all();
        }
        expect(text);
        expect_none();
    }
}

/* A message and a half: the half waits for its other half. */
static void and_a_half(void **state)
{
    for (size_t cut = 1; cut < 4 + 3; cut++) {
        char second[] = "\3\0\0\0abc";
        send_text("whole");
        put(second, cut);
        read_all();
        expect("whole");
        expect_none();
        put(second + cut, 7 - cut);
        read_all();
        expect("abc");
        expect_none();
    }
}

/* A message's bytes stay until the next is asked for. */
static void lasts_until_the_next(void **state)
{
    struct span json;
    bool broken;

    send_text("first");
    send_text("second");
    read_all();
    assert_true(control_next(&reader, &json, &broken));
    assert_span(json, "first");
    struct span next;
    assert_true(control_next(&reader, &next, &broken));
    assert_span(next, "second");
}

/* --- large ------------------------------------------------------------------------ */

static void *send_largest(void *arg)
{
    struct err err;

    return control_send(ends[0], *(struct span *)arg, NULL, 0, &err) == 0 ? arg : NULL;
}

static void largest(void **state)
{
    char *text = mem_alloc(CONTROL_MESSAGE_MAX);
    struct span whole = span_of(text, CONTROL_MESSAGE_MAX), json;
    struct err err;
    pthread_t sender;
    bool broken;
    void *sent;

    for (size_t i = 0; i < CONTROL_MESSAGE_MAX; i++)
        text[i] = (char)(i * 31 >> 7);
    assert_int_equal(pthread_create(&sender, NULL, send_largest, &whole), 0);
    while (!control_next(&reader, &json, &broken)) {
        struct pollfd p = {.fd = ends[1], .events = POLLIN};
        assert_false(broken);
        assert_int_equal(poll(&p, 1, 30000), 1);
        assert_int_equal(control_read(&reader, ends[1], &err), 1);
    }
    assert_int_equal(pthread_join(sender, &sent), 0);
    assert_non_null(sent);
    assert_true(span_eq(json, whole));
    expect_none();
    send_text("after it");
    read_all();
    expect("after it");
    free(text);
}

static void too_large(void **state)
{
    static const size_t sizes[] = {CONTROL_MESSAGE_MAX + 1, 0x7fffffff, 0x80000000, 0xffffffff};

    for (size_t i = 0; i < COUNT_OF(sizes); i++) {
        struct span json;
        bool broken = false;
        char head[4];
        head_of(sizes[i], head);
        send_text("good");
        put(head, 4);
        read_all();
        expect("good"); /* what came before it counts */
        assert_false(control_next(&reader, &json, &broken));
        assert_true(broken);
        broken = false;
        assert_false(control_next(&reader, &json, &broken)); /* and it stays broken */
        assert_true(broken);
        control_reader_fini(&reader);
    }
}

/* --- ends ------------------------------------------------------------------------- */

static void peer_closes(void **state)
{
    struct err err = {0};

    send_text("last words");
    put("\5\0\0\0ab", 6);
    close(ends[0]);
    ends[0] = -1;
    assert_int_equal(control_read(&reader, ends[1], &err), 1);
    assert_int_equal(control_read(&reader, ends[1], &err), 0);
    assert_int_equal(control_read(&reader, ends[1], &err), 0);
    expect("last words");
    expect_none();

    assert_int_equal(control_send(ends[1], SPAN_LIT("{}"), NULL, 0, &err), -1);
    assert_string_equal(err.text, "control socket: Broken pipe");
    assert_int_equal(err.status, 500);
}

static void bad_socket(void **state)
{
    struct err err = {0};

    assert_int_equal(control_read(&reader, -1, &err), -1);
    assert_int_equal(err.status, 500);
    assert_string_equal(err.text, "control socket: Bad file descriptor");
}

/* --- descriptors --------------------------------------------------------------------- */

/* n read ends of pipes of our own; the write ends stay here. */
static void send_pipes(unsigned n, int *writers, const char *text)
{
    int readers[CONTROL_FDS_MAX];
    struct err err;

    for (unsigned i = 0; i < n; i++) {
        int both[2];
        assert_int_equal(pipe2(both, O_CLOEXEC), 0);
        readers[i] = both[0];
        writers[i] = both[1];
    }
    if (control_send(ends[0], span_str(text), readers, n, &err) < 0)
        fail_msg("%s", err.text);
    for (unsigned i = 0; i < n; i++)
        close(readers[i]);
}

static bool is_open(int writer)
{
    struct pollfd p = {.fd = writer, .events = POLLOUT};

    return poll(&p, 1, 0) == 1 && !(p.revents & POLLERR); /* POLLERR: no reader is left */
}

static void descriptors(void **state)
{
    int writers[3];

    send_text("without");
    send_pipes(3, writers, "with three");
    send_text("behind");
    read_all();
    expect("without");
    expect("with three");
    expect("behind");
    assert_int_equal(reader.nfds, 3);
    for (int i = 0; i < 3; i++) {
        char c = (char)('a' + i), got = 0;
        assert_int_equal(write(writers[i], &c, 1), 1);
        assert_int_equal(read(reader.fds[i], &got, 1), 1); /* in their order */
        assert_int_equal(got, c);
        assert_true(fcntl(reader.fds[i], F_GETFD) & FD_CLOEXEC);
        assert_true(is_open(writers[i]));
    }
    control_reader_fini(&reader); /* not taken: closed */
    assert_int_equal(reader.nfds, 0);
    for (int i = 0; i < 3; i++) {
        assert_false(is_open(writers[i]));
        close(writers[i]);
    }
}

/* As many as there may be, then more: those that nobody can take are closed. */
static void many_descriptors(void **state)
{
    static int writers[CONTROL_FDS_MAX];
    int more[2];

    send_pipes(CONTROL_FDS_MAX, writers, "all");
    read_all();
    expect("all");
    assert_int_equal(reader.nfds, CONTROL_FDS_MAX);
    send_pipes(2, more, "more");
    read_all();
    expect("more");
    assert_int_equal(reader.nfds, CONTROL_FDS_MAX);
    for (int i = 0; i < 2; i++) {
        assert_false(is_open(more[i]));
        close(more[i]);
    }
    for (int i = 0; i < CONTROL_FDS_MAX; i++) {
        assert_true(is_open(writers[i]));
        close(writers[i]);
    }
}

/* They come with the first byte, before the message is whole. */
static void descriptors_come_first(void **state)
{
    static char text[65536 * 2];
    int writers[1];
    struct err err;

    memset(text, 'x', sizeof(text) - 1);
    send_pipes(1, writers, text);
    assert_int_equal(control_read(&reader, ends[1], &err), 1);
    assert_int_equal(reader.nfds, 1);
    expect_none();
    read_all();
    expect(text);
    close(writers[0]);
}

int main(void)
{
#define WITH_SOCKETS(test) cmocka_unit_test_setup_teardown(test, setup, teardown)
    const struct CMUnitTest tests[] = {
        WITH_SOCKETS(several_at_once),
        WITH_SOCKETS(byte_for_byte),
        WITH_SOCKETS(and_a_half),
        WITH_SOCKETS(lasts_until_the_next),
        WITH_SOCKETS(largest),
        WITH_SOCKETS(too_large),
        WITH_SOCKETS(peer_closes),
        WITH_SOCKETS(bad_socket),
        WITH_SOCKETS(descriptors),
        WITH_SOCKETS(many_descriptors),
        WITH_SOCKETS(descriptors_come_first),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
