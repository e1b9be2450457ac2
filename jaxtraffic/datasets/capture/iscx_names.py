"""What the file names of ISCX VPN-nonVPN 2016 say, as a table.

The set has no labels but the names of its captures, and these are spelt in several ways: `AIMchat1`, `aim_chat_3a`,
`facebookchat1`, `facebook_chat_4a`, `hangout_chat_4b`, `hangouts_chat_4a`, `skype_file1`, `vpn_skype_files1a`,
`scpDown1`, `sftp_down_3a`, `Torrent01`, `vpn_bittorrent`, `youtubeHTML5_1`, `vpn_netflix_A`. Letter case, underscores,
dashes and spaces are left out before a name is looked up; what follows the words of the table is a number, a letter, or
both.

Choices where publications differ: video calls are a traffic type of their own, "video" (some count them as streaming,
some as VoIP, the publishers name none); captures over Tor, which lie among those without VPN, have the application
"tor", are "nonvpn", and are "streaming" or "browsing" by the site; the application of `ftps`, `sftp` and `scp` is the
protocol.
"""

from __future__ import annotations

from typing import NamedTuple


class Meaning(NamedTuple):
    """What a file name says.

    Attributes:
        application: such as "skype".
        traffic: "browsing", "chat", "email", "file transfer", "p2p", "streaming", "video" or "voip".
        vpn: "vpn" or "nonvpn".
    """

    application: str
    traffic: str
    vpn: str


WORDS: dict[str, tuple[str, str]] = {
    "aimchat": ("aim", "chat"),
    "bittorrent": ("bittorrent", "p2p"),
    "email": ("email", "email"),
    "facebookaudio": ("facebook", "voip"),
    "facebookchat": ("facebook", "chat"),
    "facebookvideo": ("facebook", "video"),
    "ftpsdown": ("ftps", "file transfer"),
    "ftpsup": ("ftps", "file transfer"),
    "ftps": ("ftps", "file transfer"),
    "gmailchat": ("gmail", "chat"),
    "hangoutaudio": ("hangouts", "voip"),
    "hangoutchat": ("hangouts", "chat"),
    "hangoutvideo": ("hangouts", "video"),
    "hangoutsaudio": ("hangouts", "voip"),
    "hangoutschat": ("hangouts", "chat"),
    "hangoutsvideo": ("hangouts", "video"),
    "icqchat": ("icq", "chat"),
    "netflix": ("netflix", "streaming"),
    "scp": ("scp", "file transfer"),
    "scpdown": ("scp", "file transfer"),
    "scpup": ("scp", "file transfer"),
    "sftp": ("sftp", "file transfer"),
    "sftpdown": ("sftp", "file transfer"),
    "sftpup": ("sftp", "file transfer"),
    "skypeaudio": ("skype", "voip"),
    "skypechat": ("skype", "chat"),
    "skypefile": ("skype", "file transfer"),
    "skypefiles": ("skype", "file transfer"),
    "skypevideo": ("skype", "video"),
    "spotify": ("spotify", "streaming"),
    "torfacebook": ("tor", "browsing"),
    "torgoogle": ("tor", "browsing"),
    "tortwitter": ("tor", "browsing"),
    "torvimeo": ("tor", "streaming"),
    "toryoutube": ("tor", "streaming"),
    "torrent": ("bittorrent", "p2p"),
    "vimeo": ("vimeo", "streaming"),
    "voipbuster": ("voipbuster", "voip"),
    "youtube": ("youtube", "streaming"),
    "youtubehtml5": ("youtube", "streaming"),
}
"""Words that a name starts with (after `vpn`), longest first -> application and traffic type."""

UNNUMBERED = ("bittorrent", "torfacebook", "torgoogle", "tortwitter")
"""Words that may stand without a number or letter after them."""

_LONGEST_FIRST = sorted(WORDS, key=len, reverse=True)


def meaning(stem: str) -> Meaning | None:
    """What the name of a capture (without ending) says; None where it is no name of the set."""
    plain = "".join(char for char in stem.casefold() if char not in "_- ")
    vpn = "vpn" if plain.startswith("vpn") else "nonvpn"
    plain = plain.removeprefix("vpn")
    for word in _LONGEST_FIRST:
        if plain.startswith(word) and _is_number(plain[len(word) :], word in UNNUMBERED):
            return Meaning(*WORDS[word], vpn)
    return None


def _is_number(rest: str, may_be_empty: bool) -> bool:
    """Whether the rest of a name is a number of at most two digits, one of the letters a to d, or both."""
    if not rest:
        return may_be_empty
    digits = rest[:-1] if rest[-1] in "abcd" else rest
    return len(digits) <= 2 and (not digits or (digits.isascii() and digits.isdigit()))
