"""What a host has: devices through NVML, processors, memory, disk."""
