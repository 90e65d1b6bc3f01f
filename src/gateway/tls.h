/*
 * gateway/tls - TLS 1.2 and 1.3 on a client's connection, by OpenSSL.
 *
 *   client.c ── tls_recv, tls_send, tls_flush ──▶ SSL ──▶ the same socket
 *
 * The calls behave as recv(2), socket_send() and socket_flush() do on a plain
 * connection, so that nothing else in the data plane knows the difference.  A
 * context holds one certificate; connections that began with it keep it when
 * another is put in its place.
 */
#pragma once
#include <openssl/types.h>
#include <stdbool.h>
#include <sys/types.h>
#include <sys/uio.h>

#include "base/buf.h"
#include "base/err.h"

/* From a chain (the server's own certificate first) and its private key, both PEM. Ended by
 * SSL_CTX_free().  NULL with a sentence. */
SSL_CTX *tls_context_new(struct span chain, struct span key, struct err *err);

/* A server's end on a connected socket, which stays the caller's. NULL: no memory. */
SSL *tls_new(SSL_CTX *context, int fd);

enum tls_progress {
    TLS_DONE,
    TLS_AGAIN,  /* when the socket has something, or takes something */
    TLS_FAILED, /* an alert was sent if there is one for it */
    TLS_PLAIN   /* the client speaks HTTP without TLS */
};
enum tls_progress tls_handshake(SSL *ssl);

/* As recv(2): a count below n says that the socket is empty, unless *ended was set: then the
 * peer's end, clean (0 comes next) or not (-1), is right behind these bytes. */
ssize_t tls_recv(SSL *ssl, char *p, size_t n, bool *ended);

/* As socket_send(); `flat` has flat_bytes for putting small pieces together. */
int tls_send(SSL *ssl, struct buf *out, struct iovec *pieces, int n, char *flat,
             size_t flat_bytes) MUST_CHECK;
/* As socket_flush(). */
int tls_flush(SSL *ssl, struct buf *out) MUST_CHECK;

/* Tells the peer that nothing follows (close_notify). False: the socket is full, try again. */
bool tls_goodbye(SSL *ssl);

/* The end; the socket is still open. Only a `whole` answer ends with a goodbye: without it
 * the peer knows of the cut. */
void tls_free(SSL *ssl, bool whole);
