"""The Celery application: a fast way to wake a node, never the truth. Its settings are stated here and only here."""

from __future__ import annotations

import uuid

from celery import Celery
from kombu.transport.redis import Channel

from service import shell_environment
from service.redis_connections import connection_class
from service.settings import Settings

WAKE_TASK = "barlow.wake"
"""Its one argument is `attempt_id`; the task tells the node to look for placed attempts and returns."""


def make_celery(settings: Settings) -> Celery:
    """The application of the scheduler (sends) and the workers (receive)."""
    shell_environment.disown(*shell_environment.BROKER)
    # There is no setting of Celery's for it: one process has one broker.
    Channel.connection_class = connection_class(same_account=settings.same_account)
    app = Celery("barlow", broker=settings.redis_url.get_secret_value(), set_as_current=False, fixups=[])
    app.conf.update(
        # A message says "look", so it is acknowledged early: a second one is harmless, a lost one is sent again.
        task_acks_late=False,
        # No result backend: publishing with one blocks for 20 s and more when Redis is away.
        result_backend=None,
        task_ignore_result=True,
        task_store_errors_even_if_ignored=False,
        worker_prefetch_multiplier=1,
        worker_disable_prefetch=True,
        # JSON only: nothing that comes from the broker can run code.
        task_serializer="json",
        result_serializer="json",
        accept_content=["json"],
        # Whoever reaches the broker could end a worker by it, or read its settings.
        worker_enable_remote_control=False,
        broker_connection_retry_on_startup=True,
        broker_connection_max_retries=None,
        broker_pool_acquire_timeout=5,
        broker_transport_options={
            "ack_emulation": False,  # a copy of what is being worked at would only be put back
            "socket_timeout": 10,
            "socket_connect_timeout": 5,
            "socket_keepalive": True,
            "health_check_interval": 25,
        },
        worker_hijack_root_logger=False,
        worker_send_task_events=False,
        task_send_sent_event=False,
        timezone="UTC",
    )
    return app


def queue_of(node: str) -> str:
    """The queue that only this node's worker reads."""
    return f"node.{node}"


def send_wake(app: Celery, node: str, attempt_id: uuid.UUID) -> None:
    """Tell a node that an attempt is placed on it.

    Raises:
        kombu.exceptions.OperationalError: Redis is away; the message may have been delivered all the same.
    """
    app.send_task(
        WAKE_TASK, kwargs={"attempt_id": str(attempt_id)}, task_id=str(attempt_id), queue=queue_of(node), retry=False
    )
