"""Drivers: where jobs are stored and moved. Each one implements
:class:`taskharbor.drivers.base.Driver`."""
