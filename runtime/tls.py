"""TLS towards what we need (Kafka, MySQL): a context from settings, and what its failures mean, in a sentence."""

import ssl

from runtime.config import Files
from runtime.errors import ConfigError

EXPIRED, NOT_YET_VALID, OTHER_NAME, OTHER_ADDRESS = 10, 9, 62, 64
"""OpenSSL's X509_V_ERR_ codes."""


def client_context(files: Files, section: str) -> ssl.SSLContext:
    """Verifies the server's certificate and its host name, and shows our certificate, if we have one.

    Reads the files now. Raises ConfigError that names the setting.
    """
    prefix = f"RAMAL_{section}_"
    try:
        context = ssl.create_default_context(cafile=files.ca_file or None)
    except OSError as error:
        raise ConfigError(f"{prefix}CA_FILE: {files.ca_file}: {_reason(error)}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.certificate:
        key = f"{prefix}CERTIFICATE, {prefix}PRIVATE_KEY"
        try:
            # Without a function OpenSSL would ask at the terminal.
            context.load_cert_chain(files.certificate, files.private_key or None, password=_no_password)
        except _Encrypted:
            raise ConfigError(f"{key}: the key is encrypted; a file without password is needed") from None
        except OSError as error:
            raise ConfigError(f"{key}: {files.certificate}: {_reason(error)}") from None
    return context


class _Encrypted(Exception):
    pass


def _no_password() -> str:
    raise _Encrypted


def _reason(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return (error.reason or str(error)).replace("_", " ").lower()
    return error.strerror or str(error)


def tls_fault(error: BaseException, section: str, files: Files, server: str, host: str) -> str | None:
    """What only a person can mend, in one sentence; None where TLS is not to blame.

    `error` or whatever it came from; `server` is what it is called in the sentence.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, ssl.SSLError):
        cause = cause.__cause__ or cause.__context__
    if cause is None:
        return None
    prefix = f"RAMAL_{section}_"
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _unverified(cause, f"{server} at {host}", prefix, files)
    reason = cause.reason or ""
    said = _reason(cause)
    if "ALERT" in reason:
        if not files.certificate:
            return f"{server} at {host} wants a certificate of ours: {prefix}CERTIFICATE is not set ({said})"
        return f"{server} at {host} refuses our certificate, {prefix}CERTIFICATE ({said})"
    if "UNEXPECTED_EOF" in reason or isinstance(cause, ssl.SSLEOFError):
        return None  # it may just be starting or ending
    return f"{server} at {host} does not speak TLS there ({said})"


def _unverified(error: ssl.SSLCertVerificationError, server: str, prefix: str, files: Files) -> str:
    if error.verify_code == EXPIRED:
        return f"{server} shows a certificate that has expired"
    if error.verify_code == NOT_YET_VALID:
        return f"{server} shows a certificate that is not valid yet"
    if error.verify_code in (OTHER_NAME, OTHER_ADDRESS):
        return f"{server} shows a certificate that is for another host"
    authorities = f"{prefix}CA_FILE" if files.ca_file else f"the system's authorities ({prefix}CA_FILE is not set)"
    return f"{server} shows a certificate that none of {authorities} vouches for: {error.verify_message}"
