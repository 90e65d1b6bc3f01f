"""Certificates that a test makes for itself."""
import ssl
import subprocess


def openssl(*args, cwd):
    subprocess.run(["openssl", *map(str, args)], cwd=cwd, check=True, capture_output=True)


class Certificate:
    """Signed by itself, for segue.test and 127.0.0.1; its two files and their text."""

    def __init__(self, box, name="tls", days=30, kind=("ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
                 dates=None):
        folder = box.folder
        self.chain_file, self.key_file = folder / f"{name}.crt", folder / f"{name}.key"
        self.name = name
        openssl("req", "-x509", "-newkey", *kind, "-nodes", "-keyout", self.key_file,
                "-out", self.chain_file, "-days", days, "-subj", f"/CN={name}.segue.test",
                "-addext", "subjectAltName=DNS:segue.test,IP:127.0.0.1", cwd=folder)
        if dates:  # (not before, not after) as YYYYMMDDHHMMSSZ: `req` cannot, `ca` can
            self._redate(folder, *dates)

    def _redate(self, folder, begin, end):
        request = folder / f"{self.name}.csr"
        openssl("x509", "-x509toreq", "-in", self.chain_file, "-signkey", self.key_file,
                "-out", request, cwd=folder)
        (folder / "index.txt").write_text("")
        (folder / "serial").write_text("01\n")
        (folder / "ca.cnf").write_text(
            "[ca]\ndefault_ca=c\n[c]\ndatabase=index.txt\nserial=serial\nnew_certs_dir=.\n"
            "default_md=sha256\npolicy=p\nunique_subject=no\n[p]\ncommonName=supplied\n")
        openssl("ca", "-batch", "-config", "ca.cnf", "-selfsign", "-keyfile", self.key_file,
                "-in", request, "-out", self.chain_file, "-startdate", begin, "-enddate", end,
                "-notext", cwd=folder)

    @property
    def chain(self):
        return self.chain_file.read_text()

    @property
    def key(self):
        return self.key_file.read_text()

    def client(self):
        """A client's context that trusts this certificate alone."""
        context = ssl.create_default_context(cadata=self.chain)
        return context


def issuer(wire):
    """The common name of the certificate that a connection was given."""
    return dict(pair[0] for pair in wire.s.getpeercert()["subject"])["commonName"]
