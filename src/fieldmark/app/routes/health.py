"""Whether the service lives, and whether it can work."""

from fastapi import APIRouter
from pydantic import BaseModel

router = APIRouter(tags=["health"])


class Health(BaseModel):
    """It answers."""

    status: str = "ok"


@router.get("/healthz")
async def healthz() -> Health:
    """Whether the process lives."""
    return Health()
