"""From history to verdict to report. Knows no SSH and no aiohttp."""
