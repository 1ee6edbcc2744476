"""What a command can report that no answer of the daemon's is."""

from waguard.errors import WaguardError


class CommandError(WaguardError):
    """The command line"""


class NoToken(CommandError, code="no_token", http=0):
    """No token could be found to show to the daemon."""

    do = "Run it as the daemon's user, or set WAGUARD_TOKEN."


class TokenUnfit(CommandError, code="token_unfit", http=0):
    """WAGUARD_TOKEN holds no token."""

    do = "Set it to a token, or unset it."


class NotTheDaemon(CommandError, code="not_the_daemon", http=0):
    """What listens is another user's process, so it got no token."""

    do = "See what it is: ss -ltnp"


class NotAgreed(CommandError, code="not_agreed", http=0):
    """It wants a confirmation, and there is no terminal to give it on."""

    do = "If you mean it: --yes"


class AuditUnread(CommandError, code="audit_unread", http=0):
    """The file of the audit cannot be read."""

    do = "The message says why. Run it as root, or as the daemon's user."


class FileExists(CommandError, code="file_exists", http=0):
    """The file is there already."""

    do = "Name another one, or remove it."


class NoFile(CommandError, code="no_file", http=0):
    """The file or directory is not there."""

    do = "Name one that is."


class NoUser(CommandError, code="no_user", http=0):
    """The user as whom the service runs is not there."""

    do = "systemd-sysusers waguard.conf"


class OtherUser(CommandError, code="other_user", http=0):
    """There is a user of the service's name who is somebody else."""

    do = "Rename that one; the hint says how."


class NotRoot(CommandError, code="not_root", http=0):
    """Only root can install a service."""

    do = "sudo waguard install"


class NoSystemd(CommandError, code="no_systemd", http=0):
    """No systemd runs this machine."""

    do = "Run it as it is: waguard run"


class SystemdFailed(CommandError, code="systemd_failed", http=0, again=True):
    """systemd did not report the service's settings."""

    do = "Ask the daemon itself, with --url and WAGUARD_TOKEN."


class UnitMasked(CommandError, code="unit_masked", http=0):
    """A unit of waguard's is masked."""

    do = "Unmask it, then again."


class InstallFailed(CommandError, code="install_failed", http=0):
    """A step of the installation has failed."""

    do = "Fix what the message names, then run it again: finished steps are not repeated."


class PackageIncomplete(CommandError, code="package_incomplete", http=0):
    """A file that belongs to waguard is not there."""

    do = "Install it again."


class ProgramUnfit(CommandError, code="program_unfit", http=0):
    """A service cannot run the program from where it is."""

    do = "Install it for all users; the hint says how."


class KeyLost(CommandError, code="key_lost", http=0):
    """There are snapshots, and the key that opens them is gone."""

    do = "Put the key's copy back, or give the snapshots up."


class Undecided(CommandError, code="undecided", http=0):
    """What becomes of the sessions was not chosen."""

    do = "Choose --keep-sessions or --purge."


class NoUninstall(CommandError, code="no_uninstall", http=0):
    """The option belongs to --uninstall, which was not given."""

    do = "Add --uninstall."
