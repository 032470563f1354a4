"""Settings → the identity room, with all it needs beside the calls.

In: settings. Out: an `Identification`: who identifies, which jobs run meanwhile, which files are looked at, and whether
the room is well. Keeps the parts it made, to close them. Authenticators that are not configured are not imported:
cryptography alone would cost a start 100 ms and 10 MB.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

from ..model import Identify, Job, Listen, Stage, Took, Watches, Who, nobody_counts
from .anonymous import Anonymous
from .attempts import Attempts
from .credential import BEARER, Authenticator
from .room import CERTIFICATE, Room, Way
from .settings import (
    AnonymousSettings,
    ApiKeySettings,
    IdentitySettings,
    IntrospectionSettings,
    JwtSettings,
    MtlsSettings,
)

if TYPE_CHECKING:
    from aiohttp import TraceConfig

    from .introspection import Introspection
    from .jwt import Jwt
    from .ownership import Ownership
    from .provider import Provider

Traced: TypeAlias = Callable[[], "Sequence[TraceConfig]"]
ProvingSettings: TypeAlias = JwtSettings | ApiKeySettings | IntrospectionSettings | MtlsSettings


class Identification:
    """The identity room as the house uses it. Build it anywhere, use it inside one running loop."""

    def __init__(
        self,
        settings: IdentitySettings,
        *,
        watch: Watches,
        ownership: Ownership | None = None,
        now: Callable[[], float] = time.monotonic,
        wall: Callable[[], float],
        traced: Traced | None = None,
        took: Took = nobody_counts,
    ) -> None:
        """`wall` counts seconds from 1970. `ownership` is who owns what since before a reload; `traced`
        gives what records our questions to providers, `took` hears how long they take. Raises SettingsError for
        a keys file that cannot be read."""
        self._settings = settings
        self._now = now
        self._wall = wall
        self._took = took
        self._traced = traced
        self._provider: Provider | None = None
        self._jwts: list[Jwt] = []
        self._introspections: list[Introspection] = []
        self._watch = watch
        self.listen: Listen | None = None
        """Hears what the server hands out. None where nobody proves anything: there is nobody to keep apart."""
        self.key_headers = tuple(each.header for each in settings.chosen if isinstance(each, ApiKeySettings))
        """Headers in which keys stand."""
        self.headers = self.key_headers + (("Authorization",) if settings.uses_oauth else ())
        """Headers in which callers present themselves."""
        self.who: Who | None = None
        """Tells who sent what is no call. None where nobody proves anything."""
        anonymous = [each for each in settings.chosen if isinstance(each, AnonymousSettings)]
        if settings.is_anonymous:
            self.identify: Identify = Anonymous(anonymous[0])
            return
        from .ownership import Ownership

        self._ownership = ownership or Ownership()
        self.listen = self._ownership.listen
        room = Room(
            [self._way(each) for each in settings.chosen if not isinstance(each, AnonymousSettings)],
            anonymous=Anonymous(anonymous[0]).principal if anonymous else None,
            attempts=Attempts(settings.failed_attempts.most, settings.failed_attempts.window_s),
            owns=self._ownership,
            now=now,
        )
        self.identify, self.who = room, room.who

    def _way(self, settings: ProvingSettings) -> Way:
        match settings:
            case JwtSettings():
                return Way(BEARER, self._jwt(settings))
            case ApiKeySettings():
                return Way(settings.header.lower(), self._api_keys(settings))
            case IntrospectionSettings():
                return Way(BEARER, self._introspection(settings))
            case MtlsSettings():
                from .mtls import Mtls

                return Way(CERTIFICATE, Mtls(settings, now=self._now, wall=self._wall))

    def _jwt(self, settings: JwtSettings) -> Authenticator:
        from .jwt import Jwt

        audiences = self._audiences(settings.audience)
        jwt = Jwt(settings, audiences, self._asking(), now=self._now, wall=self._wall)
        self._jwts.append(jwt)
        return jwt

    def _introspection(self, settings: IntrospectionSettings) -> Authenticator:
        from .introspection import Introspection

        known = frozenset(each.issuer for each in self._settings.chosen if isinstance(each, JwtSettings))
        introspection = Introspection(
            settings,
            self._audiences(settings.audience),
            self._asking(),
            known_issuers=known,
            now=self._now,
            wall=self._wall,
        )
        self._introspections.append(introspection)
        self._watch(settings.client_secret.files, introspection.renew_secret)
        return introspection

    def _api_keys(self, settings: ApiKeySettings) -> Authenticator:
        from ..configuration.documents import read_document
        from .api_key import ApiKeys
        from .keys_file import KeysFile

        async def reload() -> None:
            await keys.reload()
            watch_others()

        def watch_others() -> None:
            # The pepper may lie in a file of its own, another one after each change.
            others = tuple(file for file in keys.files if file not in watched)
            watched.update(others)
            self._watch(others, reload)

        # Looked at before it is read: what changes in between is a change.
        watched = {settings.keys_file}
        self._watch((settings.keys_file,), reload)
        keys = ApiKeys(settings, read_document(settings.keys_file, KeysFile), now=self._now, wall=self._wall)
        watch_others()
        return keys

    def _asking(self) -> Provider:
        if self._provider is None:
            from .provider import Provider

            configs = () if self._traced is None else self._traced()
            self._provider = Provider(trace_configs=configs, took=self._took)
        return self._provider

    def _audiences(self, named: str | None) -> frozenset[str]:
        audience = named or self._settings.resource
        assert audience is not None  # the settings were checked: who uses OAuth has a resource
        return frozenset((audience,))

    def guarded(self, serve: Stage) -> Stage:
        """The stage behind what keeps callers apart and ends streams with their credential."""
        if self.listen is None:
            return serve
        from .expiry import Expiring
        from .owned import Owned

        return Expiring(Owned(serve, self._ownership), self._settings.stream_grace_s)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """What runs beside the calls."""
        return tuple(jwt.run for jwt in self._jwts)

    def why_unready(self) -> str | None:
        """One word for an operator while the keys of an issuer have never been loaded, or none are usable."""
        if any(not each.was_loaded for each in self._jwts):
            return "keys not loaded"
        if self._jwts and not any(each.is_usable for each in self._jwts):
            return "keys too old"
        return None

    def why_degraded(self) -> Sequence[str]:
        """Which providers give no good answer at the moment, and why, in fixed words."""
        parts: list[Jwt | Introspection] = [*self._jwts, *self._introspections]
        return [f"{each.issuer}: {why}" for each in parts if (why := each.why_degraded()) is not None]

    async def close(self) -> None:
        for each in self._introspections:
            await each.close()
        if self._provider is not None:
            await self._provider.close()
