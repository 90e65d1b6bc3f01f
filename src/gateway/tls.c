/* gateway/tls - see tls.h. */
#include "gateway/tls.h"

#include <errno.h>
#include <limits.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>

#include "base/log.h"

/* Forward secrecy and authenticated encryption only. */
static const char ciphers_1_2[] = "ECDHE+AESGCM:ECDHE+CHACHA20";

/* --- the context ------------------------------------------------------------ */

static const char *reason(void)
{
    const char *text = ERR_reason_error_string(ERR_peek_last_error());

    return text ? text : "no reason given";
}

/* HTTP/1.1 is all that is spoken; who offers others only is told so (RFC 7301). */
static int choose_protocol(SSL *ssl, const unsigned char **out, unsigned char *n,
                           const unsigned char *in, unsigned in_n, void *arg)
{
    static const unsigned char ours[] = "\x08http/1.1";
    unsigned char *chosen;

    if (SSL_select_next_proto(&chosen, n, ours, sizeof(ours) - 1, in, in_n) !=
        OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_ALERT_FATAL;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

/* A key that wants a passphrase has nobody to give it. */
static int no_passphrase(char *text, int room, int rw, void *arg)
{
    return -1;
}

static int use_chain(SSL_CTX *c, BIO *pem, struct err *err)
{
    X509 *x = PEM_read_bio_X509_AUX(pem, NULL, no_passphrase, NULL);
    int rc = x ? SSL_CTX_use_certificate(c, x) : 0;

    X509_free(x);
    if (rc != 1)
        return err_set(err, 400, "the certificate cannot be used: %s", reason());
    while ((x = PEM_read_bio_X509(pem, NULL, no_passphrase, NULL)) != NULL) {
        if (SSL_CTX_add0_chain_cert(c, x) == 1)
            continue;
        X509_free(x);
        return err_set(err, 400, "a certificate of the chain cannot be used: %s", reason());
    }
    if (ERR_GET_REASON(ERR_peek_last_error()) != PEM_R_NO_START_LINE)
        return err_set(err, 400, "a certificate of the chain cannot be read: %s", reason());
    ERR_clear_error(); /* that was the end of the text */
    return 0;
}

static int use_key(SSL_CTX *c, BIO *pem, struct err *err)
{
    EVP_PKEY *key = PEM_read_bio_PrivateKey(pem, NULL, no_passphrase, NULL);
    int rc = key ? SSL_CTX_use_PrivateKey(c, key) : 0;

    EVP_PKEY_free(key);
    if (rc == 1 && SSL_CTX_check_private_key(c) == 1)
        return 0;
    return err_set(err, 400, "the private key %s: %s",
                   key ? "does not belong to the certificate" : "cannot be read", reason());
}

static void set_rules(SSL_CTX *c)
{
    ALWAYS(SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION) == 1);
    ALWAYS(SSL_CTX_set_cipher_list(c, ciphers_1_2) == 1);
    SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION |
                               SSL_OP_CIPHER_SERVER_PREFERENCE);
    /* What the socket does not take is written again from wherever it is kept by then; an
     * idle connection keeps no buffers. */
    SSL_CTX_set_mode(c, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER |
                            SSL_MODE_RELEASE_BUFFERS);
    /* Sessions are resumed by tickets, which need no table that workers would share. */
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_alpn_select_cb(c, choose_protocol, NULL);
}

SSL_CTX *tls_context_new(struct span chain, struct span key, struct err *err)
{
    BIO *chain_pem = NULL, *key_pem = NULL;
    int rc = -1;

    /* The gateway reads no file, so no openssl.cnf either. */
    OPENSSL_init_ssl(OPENSSL_INIT_NO_LOAD_CONFIG, NULL);
    ERR_clear_error();
    SSL_CTX *c = SSL_CTX_new(TLS_server_method());
    if (chain.n <= INT_MAX && key.n <= INT_MAX) {
        chain_pem = BIO_new_mem_buf(chain.p, (int)chain.n);
        key_pem = BIO_new_mem_buf(key.p, (int)key.n);
    }
    if (!c || !chain_pem || !key_pem) {
        err_set(err, 500, "OpenSSL: %s", reason());
    } else {
        set_rules(c);
        rc = use_chain(c, chain_pem, err) < 0 || use_key(c, key_pem, err) < 0 ? -1 : 0;
    }
    BIO_free(chain_pem);
    BIO_free(key_pem);
    ERR_clear_error();
    if (rc == 0)
        return c;
    SSL_CTX_free(c);
    return NULL;
}

/* --- a connection ----------------------------------------------------------- */

SSL *tls_new(SSL_CTX *context, int fd)
{
    SSL *ssl = SSL_new(context);

    if (ssl && SSL_set_fd(ssl, fd) != 1) {
        SSL_free(ssl);
        ssl = NULL;
    }
    ERR_clear_error();
    if (ssl)
        SSL_set_accept_state(ssl);
    return ssl;
}

static bool wants_more(int why)
{
    return why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE;
}

/* After a fault no record may follow, a goodbye neither. */
static void note_fault(SSL *ssl)
{
    SSL_set_quiet_shutdown(ssl, 1);
    ERR_clear_error();
    errno = ECONNRESET;
}

enum tls_progress tls_handshake(SSL *ssl)
{
    ERR_clear_error();
    int rc = SSL_do_handshake(ssl);
    if (rc == 1)
        return TLS_DONE;
    if (wants_more(SSL_get_error(ssl, rc)))
        return TLS_AGAIN;
    bool plain = ERR_GET_REASON(ERR_peek_error()) == SSL_R_HTTP_REQUEST;
    log_debug("a TLS handshake failed: %s", reason());
    note_fault(ssl);
    return plain ? TLS_PLAIN : TLS_FAILED;
}

ssize_t tls_recv(SSL *ssl, char *p, size_t n, bool *ended)
{
    size_t got = 0, piece;

    while (got < n) {
        ERR_clear_error();
        if (SSL_read_ex(ssl, p + got, n - got, &piece) == 1) {
            got += piece; /* a record has 16 KiB at most, and n may be more */
            continue;
        }
        int why = SSL_get_error(ssl, 0);
        if (wants_more(why)) {
            errno = EAGAIN;
            return got ? (ssize_t)got : -1;
        }
        *ended = true;
        if (why == SSL_ERROR_ZERO_RETURN)
            return (ssize_t)got;
        note_fault(ssl); /* an end without a goodbye among them */
        return got ? (ssize_t)got : -1;
    }
    return (ssize_t)got;
}

/* How much of it was taken; -1: the connection is gone. */
static ssize_t write_some(SSL *ssl, const char *p, size_t n)
{
    size_t done = 0, piece;

    while (done < n) {
        ERR_clear_error();
        if (SSL_write_ex(ssl, p + done, n - done, &piece) == 1) {
            done += piece;
            continue;
        }
        if (wants_more(SSL_get_error(ssl, 0)))
            break;
        note_fault(ssl);
        return -1;
    }
    return (ssize_t)done;
}

/* Small pieces become one record. */
static struct iovec flatten(const struct iovec *pieces, int n, char *flat)
{
    size_t at = 0;

    for (int i = 0; i < n; i++) {
        if (pieces[i].iov_len)
            memcpy(flat + at, pieces[i].iov_base, pieces[i].iov_len);
        at += pieces[i].iov_len;
    }
    return (struct iovec){flat, at};
}

int tls_send(SSL *ssl, struct buf *out, struct iovec *pieces, int n, char *flat, size_t flat_bytes)
{
    struct iovec one;
    size_t total = 0;
    bool full = buf_pending(out) > 0;

    for (int i = 0; i < n; i++)
        total += pieces[i].iov_len;
    if (!full && n > 1 && total <= flat_bytes) {
        one = flatten(pieces, n, flat);
        pieces = &one;
        n = 1;
    }
    for (int i = 0; i < n; i++) {
        size_t len = pieces[i].iov_len;
        ssize_t done = full ? 0 : write_some(ssl, pieces[i].iov_base, len);
        if (done < 0)
            return -1;
        full |= (size_t)done < len;
        if ((size_t)done < len)
            buf_add(out, (char *)pieces[i].iov_base + done, len - (size_t)done);
    }
    return 0;
}

int tls_flush(SSL *ssl, struct buf *out)
{
    ssize_t done = write_some(ssl, buf_head(out), buf_pending(out));

    if (done < 0)
        return -1;
    buf_consume(out, (size_t)done);
    if (buf_pending(out))
        return 0;
    buf_fini(out);
    return 1;
}

bool tls_goodbye(SSL *ssl)
{
    if (!SSL_is_init_finished(ssl) || (SSL_get_shutdown(ssl) & SSL_SENT_SHUTDOWN))
        return true;
    ERR_clear_error();
    int rc = SSL_shutdown(ssl);
    if (rc < 0 && SSL_get_error(ssl, rc) == SSL_ERROR_WANT_WRITE)
        return false;
    ERR_clear_error();
    return true;
}

void tls_free(SSL *ssl, bool whole)
{
    if (whole)
        tls_goodbye(ssl);
    SSL_free(ssl);
}
