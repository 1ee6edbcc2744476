"""The part of the catalogue of events that is about webhooks. Pure."""

from collections.abc import Mapping

from waguard.core.event_kind import Kind
from waguard.core.event_kind import kind as _kind

WEBHOOKS: Mapping[str, Kind] = {
    "webhook.created": _kind("A webhook was made.", "webhook host", asked=True),
    "webhook.changed": _kind("A webhook was changed.", "webhook host enabled", asked=True),
    "webhook.rotated": _kind("A webhook got another secret.", "webhook host overlap_s", asked=True),
    "webhook.deleted": _kind("A webhook was deleted, with what had not arrived.", "webhook host", asked=True),
    "webhook.disabled": _kind("A webhook's receiver wants no more messages.", "webhook host why", "warning"),
    "webhook.failed": _kind(
        "A message has not arrived, and is tried again.",
        "webhook host message error left_out",
        "warning",
        differs={"message": "the id of the message"},
    ),
    "webhook.dead_letter": _kind(
        "A message was tried for a day and has not arrived: it is kept as a dead letter.",
        "webhook host message error",
        "error",
        differs={"message": "the id of the message"},
    ),
    "webhook.letters_lost": _kind(
        "A webhook has too many dead letters, and the oldest were deleted.", "webhook host messages", "error"
    ),
    "webhook.missed": _kind(
        "Events were gone before a webhook was told them; its receiver is told so.",
        "webhook host events",
        "warning",
        differs={"events": "about how many events; null: nobody knows"},
    ),
    "webhook.write_failed": _kind(
        "The file of the webhooks cannot be read or written.", "path error", "error"
    ),
    "webhook.recovered": _kind("The file of the webhooks can be written again.", "path"),
    "webhook.unreadable": _kind(
        "The file of the webhooks is damaged: it was put aside.", "kept_as error", "error"
    ),
}
