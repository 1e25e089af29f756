"""The commands, one file per noun. Each wires settings, project and the rooms' doors; imports stand where they run."""
