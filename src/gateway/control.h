/*
 * gateway/control - the messages between manager and gateway, for both ends.
 *
 * A stream socket; each message is a 4-byte little-endian length and that many
 * bytes of JSON, at most CONTROL_MESSAGE_MAX.  Descriptors travel with the
 * first byte of a message (SCM_RIGHTS).  docs/architecture.md has the messages.
 */
#pragma once
#include "base/buf.h"
#include "base/err.h"

enum {
    CONTROL_MESSAGE_MAX = 16 << 20,
    CONTROL_FDS_MAX = 250 /* the kernel's SCM_MAX_FD is 253 */
};

/* Sends one message with descriptors (borrowed); waits while the socket is full. */
int control_send(int fd, struct span json, const int *fds, size_t nfds, struct err *err) MUST_CHECK;

struct control_reader {
    struct buf in;            /* bytes not yet handed out */
    int fds[CONTROL_FDS_MAX]; /* descriptors received and not yet taken; owned */
    size_t nfds;
};

void control_reader_fini(struct control_reader *r);

/* Reads what is there. 1: something, 0: the peer has closed, -1: errno is in err;
 * status 0 in err: nothing there now (EAGAIN). */
int control_read(struct control_reader *r, int fd, struct err *err) MUST_CHECK;

/* The oldest descriptor that was received and not yet taken, for the caller; -1: none. */
int control_take_fd(struct control_reader *r);

/* The next whole message, valid until the next call; false if there is none.
 * An oversized one sets *broken. */
bool control_next(struct control_reader *r, struct span *json, bool *broken);
