"""The shop's settings: addresses of the mail server and the warehouse, and the folder of its data."""

import os
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Settings:
    folder: Path = field(default_factory=lambda: Path(os.environ.get("SHOP_FOLDER", ".")))
    mail_port: int = field(default_factory=lambda: int(os.environ.get("SHOP_MAIL_PORT", "1025")))
    warehouse_url: str = field(default_factory=lambda: os.environ.get("SHOP_WAREHOUSE_URL", "http://127.0.0.1:9000"))

    @property
    def database(self) -> Path:
        return self.folder / "shop.db"

    @property
    def tasks_url(self) -> str:
        return f"sqlite:///{self.folder / 'tasks.db'}"


settings = Settings()
