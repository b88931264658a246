"""One world with everything in it: what each tenant has of its own."""

from typing import Any

import msgspec

from simulators.callbacks import Callbacks
from simulators.config import PROVIDERS, Bank, Card, Config, Simulators, Upi
from simulators.history import History
from simulators.inquiries import InquiryLimit
from simulators.merchant import Receiver
from simulators.phases import Conducts, latency_table
from simulators.provider import Provider
from simulators.providers import Terms
from simulators.routes import Routes
from simulators.world import World


class Site:
    """A world, its providers, and the routes to them. `base` is its configuration; `settings` is what is in force of it now."""

    def __init__(
        self,
        base: Config,
        *,
        world: World,
        conducts: dict[str, Conducts],
        providers: dict[str, Provider[Any]],
        callbacks: Callbacks,
        receiver: Receiver,
        routes: Routes,
    ) -> None:
        self.base = base
        self.settings: Simulators = base
        self.world = world
        self.providers = providers
        self.callbacks = callbacks
        self.routes = routes
        self.conducts = conducts
        self._receiver = receiver
        self.settings_history = History[Simulators](base)

    def change(self, settings: Simulators) -> None:
        """From now on these settings hold. What was drawn before, or set on the clock, stays."""
        for name, provider in self.providers.items():
            own = settings_of(settings, name)
            self.conducts[name].change(own, settings.phases)
            provider.change(terms(own))
        self._receiver.latency = latency_table(settings.merchant.latency)
        self.settings = settings
        self.settings_history.note(len(self.world.journal), settings)
        self.world.clock.on_change()


def settings_of(settings: Simulators, provider: str) -> Card | Upi | Bank:
    """The section of one provider."""
    own: Card | Upi | Bank = getattr(settings, provider)
    return own


def terms(settings: Card | Upi | Bank) -> Terms:
    """The terms that a section of the configuration sets."""
    found = Terms(refund_delay=latency_table(settings.refund_delay) if settings.refund_delay else None)
    match settings:
        case Card():
            return found._replace(
                authorization_lifetime_ms=round(settings.authorization_lifetime.ms),
                dispute_delay_ms=round(settings.dispute_delay.ms),
            )
        case Upi(inquiries_per_min=per_min) if per_min is not None:
            return found._replace(inquiry_limit=InquiryLimit(per_min))
        case _:
            return found


def without_ports(settings: Simulators) -> Simulators:
    """The same for a tenant, who has no ports: without them, and without the faults that need one."""

    def stripped(section: Any, **changes: Any) -> Any:  # noqa: ANN401 - a provider's settings, or a phase's changes of them
        if section.faults is not None:
            changes["faults"] = tuple(fault for fault in section.faults if fault.operation != "connect")
        return msgspec.structs.replace(section, **changes)

    own = {provider: stripped(getattr(settings, provider), port=None) for provider in PROVIDERS}
    phases = tuple(
        msgspec.structs.replace(phase, **{provider: stripped(getattr(phase, provider)) for provider in PROVIDERS})
        for phase in settings.phases
    )
    return msgspec.structs.replace(settings, phases=phases, **own)
