"""Files, processes, devices and settings' machinery: knows no music."""
