"""What routes ask for: the service, who asks, and what one must be allowed to.

All of it is answered at once: what is not ``async`` would be sent to another thread for it.
"""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Request

from scrd.serve.auth import Role, Who
from scrd.serve.service import Service
from scrd.serve.uploads import Refused


async def the_service(request: Request) -> Service:
    """The running service."""
    service: Service = request.app.state.service
    return service


async def asking(request: Request) -> Who:
    """Who asks; the door has seen to it that somebody does.

    Raises:
        Refused: nobody does.
    """
    who: Who | None = request.state.who
    if who is None:
        raise Refused(401, "a token is needed")
    return who


TheService = Annotated[Service, Depends(the_service)]
Asking = Annotated[Who, Depends(asking)]


def _needs(role: Role) -> Any:
    async def check(who: Asking) -> None:
        if not who.may(role):
            raise Refused(403, f"the token {who.name} may not do this: it takes the role {role}")

    return Depends(check)


Readers, Writers, Managers = _needs("read"), _needs("write"), _needs("manage")
"""Dependencies of a route: the least role that may use it."""
