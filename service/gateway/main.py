"""The application of a deployment: `uvicorn sitsearch.service.gateway.main:app`."""

from sitsearch.service.gateway.app import create_app
from sitsearch.workers.settings import settings

app = create_app(settings())
