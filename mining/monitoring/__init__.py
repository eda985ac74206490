"""The curvature while a model is trained."""

from mining.monitoring.monitor import Monitor as Monitor
from mining.monitoring.settings import MonitorSettings as MonitorSettings
