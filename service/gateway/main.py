"""The application of a deployment: `uvicorn service.gateway.main:app`."""

from service.gateway.app import create_app
from workers.settings import settings

app = create_app(settings())
