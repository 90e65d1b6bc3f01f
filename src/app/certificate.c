/* app/certificate - see certificate.h. */
#include "app/certificate.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app/internal.h"
#include "base/alloc.h"
#include "base/log.h"
#include "gateway/tls.h"

enum {
    LOOK_MS = 5000,
    PEM_BYTES_MAX = 1 << 20,
    DATE_MAX = 64,
    SOON_S = 14 * 24 * 3600 /* a renewal that has not come by then will hardly come by itself */
};

/* Tells whether a file was written or replaced. */
struct stamp {
    dev_t device;
    ino_t inode;
    off_t size;
    struct timespec changed;
};

struct certificate {
    struct manager *manager; /* borrowed */
    uv_timer_t look;
    struct stamp chain, key; /* when they were read */
};

/* --- files ------------------------------------------------------------------ */

static void stamp_take(const char *file, struct stamp *out)
{
    struct stat st;

    *out = (struct stamp){0};
    if (stat(file, &st) == 0)
        *out = (struct stamp){st.st_dev, st.st_ino, st.st_size, st.st_mtim};
}

static bool stamp_same(const struct stamp *a, const struct stamp *b)
{
    return a->device == b->device && a->inode == b->inode && a->size == b->size &&
           a->changed.tv_sec == b->changed.tv_sec && a->changed.tv_nsec == b->changed.tv_nsec;
}

static int read_pem(const char *file, const char *setting, struct buf *out, struct err *err)
{
    int fd = open(file, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    ssize_t n = fd < 0 ? -1 : 1;

    while (n > 0 && buf_pending(out) <= PEM_BYTES_MAX) {
        n = read(fd, buf_room(out, 65536), 65536);
        if (n > 0)
            buf_added(out, (size_t)n);
    }
    int why = errno;
    if (fd >= 0)
        close(fd);
    if (n < 0)
        return err_set(err, 400, "%s: %s cannot be read: %s", setting, file, strerror(why));
    if (buf_pending(out) > PEM_BYTES_MAX)
        return err_set(err, 400, "%s: %s is larger than %d bytes", setting, file, PEM_BYTES_MAX);
    return 0;
}

/* --- checks ----------------------------------------------------------------- */

static const char *date_text(const ASN1_TIME *t, char out[DATE_MAX])
{
    struct tm tm;

    if (ASN1_TIME_to_tm(t, &tm) != 1 || strftime(out, DATE_MAX, "%Y-%m-%d %H:%M UTC", &tm) == 0)
        snprintf(out, DATE_MAX, "an unknown time");
    return out;
}

static int check_dates(const X509 *x, const char *file, struct err *err)
{
    const ASN1_TIME *from = X509_get0_notBefore(x), *until = X509_get0_notAfter(x);
    time_t soon = time(NULL) + SOON_S;
    char text[DATE_MAX];

    if (X509_cmp_current_time(from) >= 0)
        return err_set(err, 400, "tls.certificate: %s is not valid before %s", file,
                       date_text(from, text));
    if (X509_cmp_current_time(until) <= 0)
        return err_set(err, 400, "tls.certificate: %s was valid until %s", file,
                       date_text(until, text));
    if (X509_cmp_time(until, &soon) < 0)
        log_warn("tls.certificate: %s is valid until %s only", file, date_text(until, text));
    else
        log_info("tls.certificate: %s is valid until %s", file, date_text(until, text));
    return 0;
}

/* What the gateway will do with them, done here first. */
static int check(const struct config *c, struct span chain, struct span key, struct err *err)
{
    SSL_CTX *tls = tls_context_new(chain, key, err);

    if (!tls)
        return err_prefix(err, "tls: %s with %s", c->tls_certificate, c->tls_key);
    int result = check_dates(SSL_CTX_get0_certificate(tls), c->tls_certificate, err);
    SSL_CTX_free(tls);
    return result;
}

static int load(struct certificate *t, struct err *err)
{
    const struct config *c = t->manager->config;
    struct buf chain = {0}, key = {0};

    /* First the stamps: what is written while we read is read once more. */
    stamp_take(c->tls_certificate, &t->chain);
    stamp_take(c->tls_key, &t->key);
    int result = read_pem(c->tls_certificate, "tls.certificate", &chain, err);
    if (result == 0)
        result = read_pem(c->tls_key, "tls.key", &key, err);
    if (result == 0)
        result = check(c, buf_span(&chain), buf_span(&key), err);
    if (result == 0) {
        json_t *message = json_pack("{s:s, s:s, s:s}", "type", "certificate", "chain",
                                    buf_cstr(&chain), "key", buf_cstr(&key));
        if (message)
            gateway_link_certificate(t->manager->link, message);
        else
            result = err_set(err, 400, "tls: %s or %s is not text", c->tls_certificate, c->tls_key);
    }
    buf_fini(&chain);
    buf_fini(&key);
    return result;
}

static void load_again(struct certificate *t)
{
    struct err err;

    if (load(t, &err) == 0)
        log_info("tls: new connections get the certificate that was read now");
    else
        log_error("%s; the certificate before it stays", err.text);
}

/* --- watching --------------------------------------------------------------- */

static void on_look(uv_timer_t *timer)
{
    struct certificate *t = timer->data;
    struct stamp chain, key;

    stamp_take(t->manager->config->tls_certificate, &chain);
    stamp_take(t->manager->config->tls_key, &key);
    if (!stamp_same(&chain, &t->chain) || !stamp_same(&key, &t->key))
        load_again(t);
}

int certificate_start(struct manager *m, struct err *err)
{
    if (!m->config->tls_certificate)
        return 0;
    struct certificate *t = NEW(struct certificate);
    t->manager = m;
    uv_timer_init(&m->loop, &t->look);
    t->look.data = t;
    m->certificate = t;
    uv_timer_start(&t->look, on_look, LOOK_MS, LOOK_MS);
    if (load(t, err) == 0)
        return 0;
    if (!m->gateway_adopted)
        return -1;
    log_error("%s; the running gateway keeps the certificate that it has", err->text);
    return 0;
}

void certificate_reload(struct manager *m)
{
    if (m->certificate)
        load_again(m->certificate);
}

static void on_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void certificate_stop(struct manager *m)
{
    if (m->certificate)
        uv_close((uv_handle_t *)&m->certificate->look, on_closed);
    m->certificate = NULL;
}
